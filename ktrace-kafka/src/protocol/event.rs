//! What exchanges tell beside records.

/// One thing that an exchange tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The client named its software (ApiVersions).
    Software { name: &'a str, version: &'a str },
    /// The cluster's id (Metadata).
    Cluster { id: &'a str },
    /// A topic's id and name (Metadata).
    Topic { id: u128, name: &'a str },
    /// The client is a member of this group.
    Group { group: &'a str },
}
