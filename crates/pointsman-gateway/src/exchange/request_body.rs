//! The body of an exchange's request: read once and kept, or passed on.
//!
//! Whoever needs all of it (an AI plugin, a variable that looks into it) reads it, and from then
//! on it can be had again and again. Otherwise it goes to the target while it arrives, and at
//! most its size and beginning are noted on the way.

use std::rc::Rc;

use bytes::Bytes;

use crate::{
    body::{self, Body, CollectError},
    exchange::{Exchange, intake::Intake},
    failure::Failure,
};

impl Exchange {
    /// Has the body watched, if a logger of the request's plugins wants to know of it. Called
    /// before plugins change the head, whose size is part of the request's.
    pub(crate) fn watch_body(&mut self) {
        let wants = self.wants();
        if !wants.request_size && wants.request_body_bytes == 0 {
            return;
        }
        let head_bytes = self.head_bytes();
        let intake = self
            .rare_mut()
            .intake
            .get_or_insert_with(|| Rc::new(Intake::new(head_bytes)));
        intake.keep(wants.request_body_bytes);
    }

    fn intake(&self) -> Option<&Rc<Intake>> {
        self.rare.get()?.intake.as_ref()
    }

    /// Bytes of the request: its head, and its body as far as it has been read or passed on. Of a
    /// body that nobody watches, the length that it was announced with.
    pub fn request_bytes(&self) -> u64 {
        let intake = self.intake();
        let body = match (&self.buffered, intake) {
            (Some(bytes), _) => bytes.len() as u64,
            (None, Some(intake)) => intake.body_bytes(),
            (None, None) => self.declared_length().unwrap_or(0),
        };
        intake.map_or_else(|| self.head_bytes(), |intake| intake.head_bytes) + body
    }

    /// What the request's head takes on the wire, one blank after each colon.
    fn head_bytes(&self) -> u64 {
        let lines: usize = self
            .request
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        let target = self
            .received
            .uri
            .path_and_query()
            .map_or(1, |target| target.as_str().len());
        (lines + target + self.received.method.as_str().len() + 14) as u64
    }

    /// The first `max` bytes of the request's body, if they were kept and there are any.
    pub(crate) fn beginning_of_body(&self, max: usize) -> Option<Vec<u8>> {
        let bytes = match &self.buffered {
            Some(bytes) => bytes[..bytes.len().min(max)].to_vec(),
            None => self.intake()?.kept(max),
        };
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Reads the body to its end, once, and keeps it.
    pub async fn read_body(&mut self, limit: u64) -> Result<Bytes, CollectError> {
        if let Some(bytes) = &self.buffered {
            let size = bytes.len() as u64;
            return if size > limit {
                Err(CollectError::TooLarge(size))
            } else {
                Ok(bytes.clone())
            };
        }
        let declared = self.declared_length();
        if let Some(declared) = declared.filter(|declared| *declared > limit) {
            return Err(CollectError::TooLarge(declared));
        }
        let bytes = body::collect(&mut self.body, declared, limit).await?;
        self.buffered = Some(bytes.clone());
        Ok(bytes)
    }

    /// Refuses a body of more than `max` bytes: at once if it says so, else when they come.
    pub(crate) fn limit_body(&mut self, max: u64) -> Result<(), Failure> {
        let here = self.buffered.as_ref().map(|bytes| bytes.len() as u64);
        if here
            .or_else(|| self.declared_length())
            .is_some_and(|length| length > max)
        {
            return Err(Failure::BodyTooLarge);
        }
        self.body = match std::mem::take(&mut self.body) {
            Body::Stream(stream) => Body::Stream(body::limited(stream, max)),
            other => other,
        };
        Ok(())
    }

    /// Reads the body, if it is not here yet, so that variables can look into it.
    pub(crate) async fn read_body_for_variables(&mut self) -> Result<(), Failure> {
        if self.buffered.is_none() {
            let limit = self.snapshot.settings.post_args_bytes_max;
            self.read_body(limit)
                .await
                .map_err(|error| crate::gateway::body_failure(&error))?;
        }
        Ok(())
    }

    /// The body, if it has been read.
    pub fn buffered_body(&self) -> Option<&Bytes> {
        self.buffered.as_ref()
    }

    /// Replaces the body that will be forwarded.
    pub fn set_body(&mut self, bytes: Bytes) {
        self.buffered = Some(bytes);
    }

    /// Takes the body for forwarding; a body that was read can be taken again.
    pub fn take_body(&mut self) -> Body {
        match &self.buffered {
            Some(bytes) => Body::whole(bytes.clone()),
            None => {
                let body = std::mem::take(&mut self.body);
                match self.intake() {
                    Some(intake) => intake.watching(body),
                    None => body,
                }
            }
        }
    }

    /// Lets go of a body that nobody has read and nobody will.
    pub(crate) fn drop_unread_body(&mut self) {
        self.body = Body::Empty;
    }

    /// `Content-Length` of the request.
    pub fn declared_length(&self) -> Option<u64> {
        self.request
            .headers
            .get(http::header::CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    /// Whether a variable that needs the body was asked for before the body was there; resets.
    pub(crate) fn take_wants_body(&self) -> bool {
        self.wants_body.take()
    }

    /// Notes that a variable needs the body.
    pub(crate) fn want_body(&self) {
        self.wants_body.set(true);
    }
}
