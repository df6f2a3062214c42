//! An exchange that is whole, and its bodies.

use std::cell::Cell;

use crate::protocol::api::Api;
use crate::protocol::bodies::Surplus;
use crate::protocol::exchange::whole;
use crate::protocol::header;
use crate::protocol::list::Struct;
use crate::protocol::reader::{Reader, Result};
use crate::sink::Head;

/// An exchange whose response is there, or that has none: the head, and the bodies.
pub struct Read<'a> {
    pub head: &'a Head<'a>,
    pub api: &'static Api,
    pub request: Reader<'a>,
    /// The response's frame, empty for a Produce with acks=0.
    pub response: &'a [u8],
    /// Behind the bodies that were read.
    pub surplus: Cell<Surplus>,
}

impl<'a> Read<'a> {
    pub fn request<T: Struct<'a>>(&self) -> Result<T> {
        let (request, behind) = whole(self.head.version, self.request)?;
        self.surplus.set(Surplus { request: behind, ..self.surplus.get() });
        Ok(request)
    }

    pub fn response<T: Struct<'a>>(&self) -> Result<T> {
        let (response, behind) = whole(self.head.version, self.response_body()?)?;
        self.surplus.set(Surplus { response: behind, ..self.surplus.get() });
        Ok(response)
    }

    pub fn response_body(&self) -> Result<Reader<'a>> {
        header::response_body(self.response, self.api, self.head.version)
    }
}
