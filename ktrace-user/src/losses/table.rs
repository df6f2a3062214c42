//! The table of reasons: one entry for each way to lose, refuse or leave out something.
//!
//! A new reason is one entry here. Its count appears in summaries and metrics, and `ktrace explain`
//! and the tables of `docs/semantics.md` have its words (a test says how these are rewritten). The
//! variants of the kernel's and the parser's own enums are matched to entries by name when this is
//! compiled.

use super::kind::Group::{LeftOut, Lost, Malformed, NotKafka};
use super::kind::Where::{Capture, Kernel, Parser, Sink, Stage};
use super::kind::{Group, Unit, Where};

/// A row of the table of reasons.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub reason: Reason,
    /// The name in summaries, metrics and lines. Users rely on it: it never changes.
    pub name: &'static str,
    pub group: Group,
    pub unit: Unit,
    pub at: Where,
    /// Reported on standard error as soon as it begins ([`LossLines`](super::LossLines)); the
    /// others are reported at the end, or by lines of their own.
    pub live: bool,
    /// One line: what has happened.
    pub meaning: &'static str,
    /// One line: what to do about it.
    pub remedy: &'static str,
}

/// Whether a reason is reported as soon as it begins.
const LIVE: bool = true;
/// Reported at the end, or by lines of its own.
const LATER: bool = false;

macro_rules! reasons {
    ($(
        $variant:ident $name:literal $group:ident $unit:ident $at:ident $live:ident,
            $meaning:literal,
            $remedy:literal;
    )+) => {
        /// Why something was not shown, or was shown with less than there was.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Reason { $(#[doc = $meaning] $variant,)+ }

        /// All reasons, each at its own index.
        pub const TABLE: &[Row] = &[$(Row {
            reason: Reason::$variant,
            name: $name,
            group: $group,
            unit: Unit::$unit,
            at: $at,
            live: $live,
            meaning: $meaning,
            remedy: $remedy,
        },)+];
    };
}

reasons! {
    // The kernel's programs.
    RingFull "ring_full" Lost Pieces Kernel LIVE,
        "A piece of a packet found no room in its ring: the agent did not read in time.",
        "Make the rings larger (--ring-size, of all together) or more (--rings), give it CPU time, or capture less (--ports, --cgroup).";
    LoadFailed "load_failed" Lost Pieces Kernel LIVE,
        "A packet's payload could not be read from the socket buffer; its headers were.",
        "Report it with the kernel's version (uname -r) and network driver: no cause is known.";
    OverLimit "over_limit" Lost Pieces Kernel LIVE,
        "A packet was longer than 576 KiB; its rest was not copied.",
        "Lower the device's gso_max_size (ip link set DEV gso_max_size 524280), and report it with uname -r.";
    Unparsed "unparsed" Lost Packets Kernel LIVE,
        "A packet of a captured connection had headers that the programs do not read.",
        "Look for IPv6 packets with more than four extension headers; report anything else with uname -r.";
    OwnerLost "owner_lost" Lost Sockets Kernel LIVE,
        "The process that opened a socket, or the socket's end, could not be reported: the ring was full.",
        "Give the agent more CPU time: more connections began or ended at once than it could read.";
    SecretLost "secret_lost" Lost SecretsAndProcesses Kernel LIVE,
        "A probe (--tls-uprobes) could not hand on a TLS secret, or a process that was to be probed.",
        "Nothing for AES-GCM, whose keys are also searched in memory. Read ChaCha20 with a key log (--tls \
         keylog:FILE).";

    // Capture files.
    IpFragment "ip_fragment" Lost Packets Capture LATER,
        "A packet of a capture file is a fragment of an IP packet; fragments are not put together.",
        "Capture at a place where TCP's packets are whole, such as the host that sends them.";
    Snaplen "snaplen" Lost Packets Capture LATER,
        "A packet of a capture file was cut by the snapshot length.",
        "Capture whole packets: tcpdump -s 0.";
    PacketHeaders "packet_headers" Lost Packets Capture LATER,
        "A packet of a capture file has headers that are cut, or that contradict themselves.",
        "Capture whole packets (tcpdump -s 0); if they are whole, the file is damaged: write it again.";
    LinkType "link_type" Lost Packets Capture LATER,
        "A packet of a capture file has a link type that is not read; link_types in the summary names it.",
        "Capture on an Ethernet or loopback interface, or on all of them (tcpdump -i any).";
    Interface "interface" Lost Packets Capture LATER,
        "A packet of a pcapng file belongs to an interface that the file does not describe.",
        "Write the file again from its beginning: a part of it, or a wrong merge, lacks the description.";
    Tunnel "tunnel" Lost Packets Capture LATER,
        "A packet of a capture file is inside another one (VXLAN, Geneve, GRE, MPLS, PPPoE), or encrypted \
         (IPsec).",
        "Capture inside the tunnel. Where the file has the inner interface too, nothing is missing.";

    // Keys of TLS connections.
    TlsLogLine "tls_log_line" Lost KeyLogLines Capture LATER,
        "A line of the key log is none, or is cut.",
        "Name the file that programs write (SSLKEYLOGFILE), and look at what else writes to it.";
    TlsLogForgotten "tls_log_forgotten" Lost Connections Capture LATER,
        "A connection's secrets from a key log were evicted by later ones; opened only now, it stays closed.",
        "Give a log of the host's Kafka clients alone, begin the file anew now and then, or raise \
         --memory-limit.";
    SecretForgotten "secret_forgotten" Lost Secrets Capture LATER,
        "A TLS secret seen by a probe was evicted by later ones before a connection asked for it.",
        "Name Kafka's ports alone (--tls-ports): 64 secrets of a process that connects there are kept for \
         a minute.";
    TlsPortNotLearned "tls_port_not_learned" Lost Ports Stage LATER,
        "A response named a broker, and no more brokers are learned for reading TLS (1024 are).",
        "Name the brokers' ports: --ports, or --tls-ports.";

    // Streams.
    Gap "gap" Lost Gaps Parser LATER,
        "Bytes are missing from a stream: they were never captured, or too late.",
        "Look for ring_full, and make the rings larger (--ring-size). A capture file lacks packets: \
         capture again.";
    GapBytes "gap_bytes" Lost Bytes Parser LIVE,
        "The bytes that gaps took.",
        "Look for ring_full, and make the rings larger (--ring-size). A capture file lacks packets: \
         capture again.";
    HeldTooMuch "held_too_much" Lost Times Parser LIVE,
        "More than 8 MiB came behind a gap in one direction, so the gap was given up.",
        "Mend the gap (ktrace explain gap). Under a small --memory-limit less than 8 MiB is held: raise it.";
    SkippedBytes "skipped_bytes" Lost Bytes Parser LATER,
        "Bytes were skipped in the search for the next frame, behind a gap or where a capture began.",
        "Mend the gap (ktrace explain gap). On a connection older than the agent it happens once: there is \
         nothing to do.";
    FrameBroken "frame_broken" Lost Frames Parser LATER,
        "A gap took a part of a frame; its messages are not shown.",
        "Mend the gap: see ktrace explain gap.";

    // Exchanges.
    Unanswered "unanswered" Lost Requests Parser LATER,
        "A request's response was never seen, so its messages are not shown.",
        "Look for gap. Without one, the connection ended before the answer: a restart, a timeout, a killed \
         broker.";
    ResponseWithoutRequest "response_without_request" Lost Responses Parser LATER,
        "A response's request was never seen: it passed before the capture began, or a gap took it.",
        "Look for gap. Right after the start there is nothing to do.";
    AmbiguousResponse "ambiguous_response" Lost Responses Parser LATER,
        "Behind a gap, a response may answer two requests with the same correlation id.",
        "Mend the gap: see ktrace explain gap.";
    TooManyPending "too_many_pending" Lost Requests Parser LIVE,
        "More than 1024 requests of a connection, or 64 MiB of them, had no response.",
        "Look for gap, and at a broker that does not answer. Under a small --memory-limit it is less: \
         raise it.";
    Unconfirmed "unconfirmed" Lost Requests Parser LATER,
        "What a search took for a request with acks=0 was followed by no other; most were no requests.",
        "Mend the gap (ktrace explain gap). On a connection older than the agent it happens once: there is \
         nothing to do.";
    UnsupportedVersion "unsupported_version" Lost Exchanges Parser LATER,
        "A request has a version of its API that no known Kafka release has.",
        "Update ktrace: the client and its broker are newer than it. Other requests are read.";
    UnsupportedApi "unsupported_api" Lost Exchanges Parser LATER,
        "A request has an API that no known Kafka release has.",
        "Update ktrace, unless the broker has APIs of its own: these are not read. Other requests are.";

    // Batches.
    UnsupportedMagic "unsupported_magic" Lost Batches Parser LATER,
        "A batch has a message format (magic) that no Kafka release has.",
        "Update ktrace; if it is the newest, report it with a capture of the connection.";
    TooManyAborted "too_many_aborted" Lost AbortedLists Parser LATER,
        "A response lists more than 65536 aborted transactions of a partition; its transactional messages \
         are left out.",
        "Look at the partition's producers: their transactions fail again and again.";
    InflationLimit "inflation_limit" Lost Batches Parser LIVE,
        "A compressed batch was skipped: too many large batches with few records came before it.",
        "Look at who produces it: each record takes more than 4 MiB. The bound is fixed.";
    MemoryLimit "memory_limit" Lost ConnectionsAndBatches Parser LIVE,
        "All connections held too much: one gave up its frames and requests, or a batch was not \
         decompressed.",
        "Raise the container's memory limit or --memory-limit, or capture less (--ports, --cgroup).";

    // Connections that are not read.
    NotKafka "not_kafka" Lost Connections Parser LATER,
        "A connection on a port given with --ports is something else than Kafka.",
        "Leave its port out of --ports. not_kafka in the summary has the reason: ktrace explain has each.";
    Tls "tls" Lost Connections Parser LATER,
        "A connection is TLS, and was not to be read.",
        "Use --tls memory, a wider --tls-service, --tls-cgroup or --tls-ports, or name the port; in replay \
         --tls-keylog.";
    TlsNoKey "tls_no_key" Lost Connections Parser LATER,
        "No key was found for a TLS connection, or for one direction; tls_unread in the summary names the \
         cipher.",
        "ChaCha20: --tls-uprobes or a key log. CBC: a key log. Others: the other end (--side), or see \
         docs/tls.md.";
    TlsDenied "tls_denied" Lost Connections Parser LATER,
        "A TLS connection's process may not be searched for keys.",
        "Run ktrace doctor: it says which capability, or whether Yama, seccomp or AppArmor denies it.";
    TlsEnded "tls_ended" Lost Connections Parser LATER,
        "A TLS connection, or its process, was over before its key was found.",
        "Use --tls-uprobes or a key log, or trace at the broker's end (--side broker), whose process lives \
         on.";
    TlsWaitingFull "tls_waiting_full" Lost Times Parser LATER,
        "A TLS connection gave up what waited for its key: over 4 MiB of it, 64 MiB of all, or 10 s.",
        "Raise --tls-cpu where searches are late, or read fewer (--tls-service, --tls-cgroup, --tls-ports).";
    TlsRecord "tls_record" Lost TlsRecords Parser LATER,
        "A TLS record could not be opened though its key was there: a gap took a part, or the key had \
         changed.",
        "Mend the gap (ktrace explain gap). After a change of keys there is nothing to do: later records \
         are opened.";

    // Connections and messages, in the stages.
    ConnectionForgotten "connection_forgotten" Lost Connections Stage LIVE,
        "A silent connection was evicted to make room; it is read again from its next whole exchange.",
        "Raise the memory limit; a worker holds 131072 connections at most: more --rings hold more.";
    CpuLimit "cpu_limit" Lost Messages Stage LIVE,
        "A message was skipped by its trace id, to keep within --cpu-limit.",
        "Raise --cpu-limit, or choose what is shown: --sample, --topic, --group.";
    SpanLimit "span_limit" Lost Messages Stage LIVE,
        "A message was skipped by its trace id, to keep within --max-spans.",
        "Raise --max-spans, or choose what is shown: --sample, --topic, --group.";
    TopicUnnamed "topic_unnamed" Lost Messages Stage LATER,
        "A message is shown with its topic's id: the name did not pass within 10 s, or memory ran out.",
        "Wait: clients ask for names again within metadata.max.age.ms (5 minutes). If it lasts, raise the \
         memory limit.";
    ShownEarly "shown_early" Lost MessagesAndCommits Stage LATER,
        "A message or commit was released before the name, response, end or other ring that it was held for.",
        "Give an agent less (--ports, --cgroup, --pid), or more --rings: most such queues are bounded for \
         each.";
    MemberForgotten "member_forgotten" Lost Members Stage LATER,
        "A member of a group was evicted; until its next group request its deliveries may lack their group.",
        "Raise a small memory limit, or give an agent less (--ports, --cgroup); of one client 256 members \
         are known.";
    ProgressForgotten "progress_forgotten" Lost Partitions Stage LATER,
        "What a group did in a partition was evicted: deliveries count anew, commits link to fewer.",
        "Raise a small memory limit, or give an agent less (--ports, --cgroup); 32768 are known at most.";
    TopicForgotten "topic_forgotten" Lost Topics Stage LATER,
        "The name of a topic id was evicted; messages may wait for it, and show the id, until it passes \
         again.",
        "Raise a small memory limit, or give an agent less (--ports, --cgroup); 65536 names are known at \
         most.";
    ClusterForgotten "cluster_forgotten" Lost BrokersAndClients Stage LATER,
        "The cluster of a broker or client was evicted; it is known again with its next Metadata response.",
        "Give an agent less (--ports, --cgroup): 16384 brokers and as many clients are known.";
    TransactionForgotten "transaction_forgotten" Lost Transactions Stage LATER,
        "The end of a transaction was evicted; messages that waited for it may be shown as unknown.",
        "Give an agent less (--ports, --cgroup): 4096 ends of a producer and 262144 in all are known.";
    AttemptForgotten "attempt_forgotten" Lost Messages Stage LATER,
        "A message whose attempt failed was evicted: its next attempt counts as its first.",
        "Look at why so much fails (--errors); 65536 such messages are known. Or give an agent less \
         (--cgroup).";
    ChainForgotten "chain_forgotten" Lost Messages Stage LATER,
        "A message that its process may have passed on was evicted: for a minute it gets no inferred links.",
        "Pass trace headers on in that service, or give an agent less (--cgroup, --pid); --no-infer turns \
         links off.";
    AppendForgotten "append_forgotten" Lost MessagesAndPartitions Stage LATER,
        "What a producer's request appended was evicted: a delivery lacks ktrace.end_to_end_ms.",
        "Nothing for consumers far behind; ktrace.queue_time_ms is there. Else give an agent less (--ports, \
         --cgroup).";
    TwinForgotten "twin_forgotten" Lost Exchanges Stage LATER,
        "An exchange that was to identify a connection's other end was evicted: it may be shown twice.",
        "Use --side client or --side broker, or give an agent less (--ports, --cgroup): 65536 in 2 s are \
         known.";
    AcquiredForgotten "acquired_forgotten" Lost Messages Stage LATER,
        "A message held by a share group's member was evicted: its ack span may be in a trace of its own.",
        "Acknowledge sooner, acquire fewer at a time (max.poll.records), or raise the memory limit.";
    UncommittedLeftOut "uncommitted_left_out" Lost Messages Stage LATER,
        "A message that was not committed in time is not listed by --uncommitted, for want of room.",
        "Choose what is looked at (--topic, --group). Of a group that never commits only the first 16 are \
         listed.";
    TraceForgotten "trace_forgotten" Lost Traces Stage LATER,
        "A trace was evicted from those that --follow-key follows; its later messages are not shown.",
        "Follow a rarer key, or fewer topics (--topic): 16384 traces are followed.";
    OwnTelemetry "own_telemetry" Lost MessagesAndAcknowledgements Stage LATER,
        "A message carries ktrace's own telemetry, or a commit or acknowledgement covers only such.",
        "Nothing needs to be done; --own-telemetry shows them.";

    // Sinks.
    ExportQueueFull "export_queue_full" Lost Spans Sink LATER,
        "A span found no room in a sink's queue, or made room for a newer one.",
        "Speed up who reads (the terminal, the collector), lengthen OTLP's queue \
         (OTEL_BSP_MAX_QUEUE_SIZE), or --sample.";
    ExportFailed "export_failed" Lost Spans Sink LATER,
        "A span was not delivered before the end, or could not be written.",
        "Read standard error: it has the cause. Check --otlp and OTEL_EXPORTER_OTLP_*.";
    ExportRefused "export_refused" Lost Spans Sink LATER,
        "The collector said that it will never take a span.",
        "Read standard error: it has what the collector says. Check its authorization and limits.";
    TraceCut "trace_cut" Lost Traces Sink LATER,
        "--tree printed a trace before it was whole, to make room for others.",
        "Show less (--topic, --group, --sample), or raise a small --memory-limit.";

    // Bytes that are not as Kafka writes them.
    Frame "frame" Malformed Frames Parser LATER,
        "A frame's size or header makes no sense; the next frame is searched.",
        "Look for gap. Without one, report it with a capture of the connection.";
    Body "body" Malformed RequestsAndResponses Parser LATER,
        "The body of a request or response does not read as its API's.",
        "Report it with a capture of the connection, unless client or broker write a protocol of their own.";
    Batch "batch" Malformed Batches Parser LATER,
        "A record batch does not read.",
        "Look at who produces it: consumers refuse it too. If they do not, report it with a capture.";
    Record "record" Malformed Records Parser LATER,
        "A record does not read, or bytes follow the last one of its batch.",
        "Look at who produces it: Java's client refuses such a batch too.";
    Compression "compression" Malformed Batches Parser LATER,
        "A batch cannot be decompressed: its data are damaged.",
        "Look at who produces it: consumers refuse it too. If they do not, report it with a capture.";
    DecompressionBomb "decompression_bomb" Malformed Batches Parser LIVE,
        "A batch inflates beyond 128 MiB, or the batches of its exchange beyond what their size allows.",
        "Look at who produces it: it may be an attack on consumers. The bound is fixed.";
    ResponseOrder "response_order" Malformed Responses Parser LATER,
        "A response is out of the order of its requests.",
        "Look for gap, and for a proxy that mixes connections. Otherwise report it with a capture.";
    Context "context" Malformed Contexts Parser LATER,
        "A header that is known to bear trace context does not read as its format.",
        "Mend what writes the header: malformed_contexts in the summary names the format.";

    // Why a connection is not Kafka's.
    ServerSpeaksFirst "server_speaks_first" NotKafka Connections Parser LATER,
        "The connection begins with words of the server, as no broker's does.",
        "Leave the port out of --ports: another service listens there.";
    NoRequest "no_request" NotKafka Connections Parser LATER,
        "The client sent what is no request of Kafka's, first or before anything was answered.",
        "Leave the port out of --ports: another service listens there.";
    ClientId "client_id" NotKafka Connections Parser LATER,
        "The first request has a client id with zero bytes or over 1024 bytes, and does not read.",
        "Leave the port out of --ports: another service listens there.";
    Size "size" NotKafka Connections Parser LATER,
        "The first request is larger than 100 MiB.",
        "Leave the port out of --ports. A broker refuses it too, unless socket.request.max.bytes was raised.";
    Searched "searched" NotKafka Connections Parser LATER,
        "The connection is older than the agent, or lost its beginning, and no request was found in it.",
        "Leave the port out of --ports. If it is Kafka, its next connection is read.";
    Preface "preface" NotKafka Connections Parser LATER,
        "The client speaks to a proxy in a way that is not read (SOCKS 5 with GSSAPI, long heads, over \
         four proxies).",
        "Trace at the broker's end (--side broker).";
    ProxyRefused "proxy_refused" NotKafka Connections Parser LATER,
        "The proxy refused what the client asked for.",
        "Look at the proxy's log. What a proxy grants later on the same connection (after 407) is not \
         followed.";
    TlsBehindProxy "tls_behind_proxy" NotKafka Connections Parser LATER,
        "The connection is TLS through a proxy, on a port that was not named.",
        "Name the proxy's port with --ports where it is Kafka; it counts as tls then.";
    NothingBehindProxy "nothing_behind_proxy" NotKafka Connections Parser LATER,
        "The connection ended before anything but words for a proxy was seen.",
        "Nothing needs to be done: no broker was spoken to.";

    // Counted, and no loss.
    LeftOutConnections "left_out" LeftOut Connections Stage LATER,
        "A connection was not read because its other end is shown, here or by another agent.",
        "Nothing needs to be done; --side and --agents choose the end.";
    UnreadBytes "unread_bytes" LeftOut Bytes Parser LATER,
        "Bytes came to an end that had closed, so no program read them.",
        "Nothing needs to be done, unless ring_full is there too: then a half-closed connection lost them.";
    SurplusBytes "surplus_bytes" LeftOut Bytes Parser LATER,
        "Bytes follow the body of a request or response; clients and brokers skip them too.",
        "Nothing needs to be done.";
    DuplicatePackets "duplicate_packets" LeftOut Packets Capture LATER,
        "A packet's bytes are in the capture file already: from another interface, translated, or sent \
         again.",
        "Nothing needs to be done.";
}
