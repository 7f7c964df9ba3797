//! HTTP collectors: a connection and a `POST` for each batch.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pointsman_ai::Endpoint;
use pointsman_gateway::{
    ports::{HttpWire, Parcel},
    upstream::destination::{Destination, Tls},
};

use crate::http_client::Dialer;

/// Posts `parcels`, and takes out what has been taken.
pub(super) async fn send(
    wire: &HttpWire,
    dialer: &Dialer,
    parcels: &mut VecDeque<Parcel>,
) -> Result<(), String> {
    while let Some(parcel) = parcels.front() {
        post(wire, dialer, parcel.body.clone()).await?;
        parcels.pop_front();
    }
    Ok(())
}

async fn post(wire: &HttpWire, dialer: &Dialer, body: Bytes) -> Result<(), String> {
    let index = rand::random_range(0..wire.uris.len().max(1));
    let uri = wire.uris.get(index).ok_or("there is no collector")?;
    let endpoint = Endpoint::parse(uri).map_err(|error| error.to_string())?;
    let tls = endpoint.is_https().then(|| Tls {
        server_name: endpoint.host().into(),
        verify: wire.ssl_verify,
        client: None,
    });
    let destination = Destination::new(endpoint.host(), endpoint.port(), tls)?;
    let (stream, _) = dialer
        .dial(&destination)
        .await
        .map_err(|error| error.detail)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driving = tokio::task::spawn_local(connection);
    let request = request(wire, &endpoint, &destination, body)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string());
    drop(sender);
    driving.abort();
    let status = response?.status();
    if status.as_u16() >= 400 {
        Err(format!("the collector answered {status}"))
    } else {
        Ok(())
    }
}

fn request(
    wire: &HttpWire,
    endpoint: &Endpoint,
    destination: &Destination,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::post(endpoint.target())
        .header(header::HOST, destination.authority.clone())
        .header(header::CONTENT_TYPE, wire.content_type)
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    for (name, value) in &wire.headers {
        let told = || format!("the header `{name}` is not valid");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| told())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| told())?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}
