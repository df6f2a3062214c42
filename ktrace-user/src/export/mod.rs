//! Where spans go: one file a sink.

mod span;

pub use span::{Kind, Link, Resource, Span, Status, Value};
