//! Collectors at a bare socket: a TCP connection for each batch, or datagrams.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use pointsman_gateway::{
    ports::{Parcel, TcpWire, UdpWire},
    upstream::destination::{Destination, Tls},
};
use tokio::{io::AsyncWriteExt, net::UdpSocket};

use crate::http_client::Dialer;

/// Writes `parcels` to a new connection, and takes them out once all are written: nobody tells how
/// much of them has arrived.
pub(super) async fn send_over_tcp(
    wire: &TcpWire,
    dialer: &Dialer,
    parcels: &mut VecDeque<Parcel>,
) -> Result<(), String> {
    let tls = wire.tls.as_ref().map(|server_name| Tls {
        server_name: server_name.as_str().into(),
        verify: false,
        client: None,
    });
    let destination = Destination::new(&wire.host, wire.port, tls)?;
    let told = |error: String| format!("{}: {error}", destination.address);
    let (mut stream, _) = dialer
        .dial(&destination)
        .await
        .map_err(|error| told(error.detail))?;
    for parcel in &*parcels {
        let written = stream.write_all(&parcel.body).await;
        written.map_err(|error| told(error.to_string()))?;
    }
    let ended = stream.shutdown().await;
    ended.map_err(|error| told(error.to_string()))?;
    parcels.clear();
    Ok(())
}

/// Sends each of `parcels` as a datagram, and takes out what has been sent.
pub(super) async fn send_datagrams(
    wire: &UdpWire,
    dialer: &Dialer,
    parcels: &mut VecDeque<Parcel>,
) -> Result<(), String> {
    let told = |error: String| format!("{}:{}: {error}", wire.host, wire.port);
    let addresses = dialer.addresses(&wire.host).await;
    let addresses = addresses.map_err(|error| told(error.detail))?;
    let address = addresses
        .first()
        .ok_or_else(|| told("the name has no address".to_owned()))?;
    let own: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ready = async {
        let socket = UdpSocket::bind(SocketAddr::new(own, 0)).await?;
        socket.connect(SocketAddr::new(*address, wire.port)).await?;
        Ok(socket)
    };
    let socket = ready
        .await
        .map_err(|error: std::io::Error| told(error.to_string()))?;
    while let Some(parcel) = parcels.front() {
        let sent = socket.send(&parcel.body).await;
        sent.map_err(|error| told(error.to_string()))?;
        parcels.pop_front();
    }
    Ok(())
}
