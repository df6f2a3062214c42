//! What a connection may hold or cost.

/// Bounds of what a connection may hold or cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one frame; a larger size is taken for a wrong one. Kafka's default for requests is 100
    /// MiB (`socket.request.max.bytes`).
    pub frame_bytes: usize,
    /// Of segments that wait for one before them.
    pub held_bytes: usize,
    /// Requests that wait for a response. Clients have five or so on their way at once; a response
    /// may have to be looked for among all.
    pub pending: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// Of one batch, decompressed.
    pub decompressed_bytes: usize,
    /// Of all batches of one exchange, decompressed; the batch that crosses it is the last that is
    /// read. An exchange that is large on the wire may have more.
    pub exchange_bytes: usize,
    /// Of each buffer that is used again and again.
    pub kept_bytes: usize,
    /// How far a beginning is searched for before the connection is taken for something else than
    /// Kafka, where nothing was lost.
    pub search_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 100 << 20,
            held_bytes: 8 << 20,
            pending: 1 << 10,
            pending_bytes: 64 << 20,
            decompressed_bytes: 128 << 20,
            exchange_bytes: 256 << 20,
            kept_bytes: 8 << 20,
            search_bytes: 64 << 20,
        }
    }
}
