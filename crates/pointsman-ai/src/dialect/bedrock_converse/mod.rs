//! (skeleton, to be replaced)

use super::Setting;
use crate::{
    conversation::{ErrorMessage, Event, Features, Malformed, Request, Response},
    json::{tree::Node, write::Writer},
};

pub(super) const EXPRESSES: Features = Features::NONE;

pub(super) fn read_request<'a>(root: Node<'_, 'a>) -> Result<Request<'a>, Malformed> {
    Err(Malformed::at(root, "not read yet"))
}

pub(super) fn write_request(_request: &Request<'_>, _setting: &Setting<'_>, _w: &mut Writer<'_>) {}

pub(super) fn read_response<'a>(
    root: Node<'_, 'a>,
    _setting: &Setting<'_>,
) -> Result<Response<'a>, Malformed> {
    Err(Malformed::at(root, "not read yet"))
}

pub(super) fn write_response(
    _response: &Response<'_>,
    _setting: &Setting<'_>,
    _w: &mut Writer<'_>,
) {
}

pub(super) fn read_error<'a>(_root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    None
}

pub(super) fn write_error(_status: u16, _error: &ErrorMessage<'_>, _w: &mut Writer<'_>) {}

#[derive(Debug)]
pub(crate) struct StreamReader;

impl StreamReader {
    pub(super) fn new(_setting: &Setting<'_>) -> Self {
        Self
    }

    pub(super) fn event(&mut self, _name: &[u8], _data: &[u8], _sink: &mut dyn FnMut(Event<'_>)) {}

    pub(super) fn finish(&mut self, _sink: &mut dyn FnMut(Event<'_>)) {}
}

#[derive(Debug)]
pub(crate) struct StreamWriter;

impl StreamWriter {
    pub(super) fn new(_setting: &Setting<'_>) -> Self {
        Self
    }

    pub(super) fn write(&mut self, _event: &Event<'_>, _out: &mut Vec<u8>) {}
}
