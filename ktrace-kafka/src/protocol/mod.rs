//! Kafka's request-response protocol: one file an API, all found through [`Api::of`].

pub mod api;
pub mod api_versions;
pub mod error;
pub mod event;
pub mod fetch;
pub mod group;
pub mod header;
pub mod metadata;
pub mod produce;
pub mod reader;
pub mod sink;

pub use api::Api;
pub use reader::{ParseError, Reader, Result};
