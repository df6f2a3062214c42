//! Hops for tests.

use std::sync::Arc;

use ktrace_kafka::context::SpanId;

use super::acknowledge::{AcknowledgeType, Acknowledgement};
use super::appends::Sent;
use super::groups::Reader;
use super::progress::Open;
use super::topics::Topics;
use super::{Context, Hop, Kind, Parties, Passage, Topic, identity};
use crate::span::{Resource, Value};

/// 2026-01-02 12:00:01.234 UTC
const SENT_NS: u64 = 1_767_355_201_234_000_000;

fn parties(service: &str, group: Option<&str>) -> Arc<Parties> {
    Arc::new(Parties {
        client_id: Some(service.into()),
        reader: group.map_or(Reader::Unknown, |group| Reader::Group(group.into())),
        cluster_id: None,
        broker_address: "127.0.0.1".into(),
        broker_port: 9092,
        client: None,
        resource: Arc::new(Resource::new(vec![("service.name".into(), Value::from(service.to_owned()))])),
    })
}

fn passage(kind: Kind, offset: i64) -> Passage {
    Passage {
        kind,
        partition: 2,
        offset: Some(offset),
        timestamp_ms: 1_767_355_201_200,
        key: None,
        value_len: Some(100),
        context: None,
        transaction: None,
        cause: None,
        derived: identity::derived_trace_id(2, offset, 1_767_355_201_200, None, Some(100)),
        error: 0,
        truncated: false,
        start_ns: SENT_NS - 3_100_000,
        end_ns: SENT_NS,
    }
}

/// A message that `orders-api` sent to `orders[2]`, without any context.
pub fn sent() -> Hop {
    let topic = Topic::Named(Topics::default().named("orders"));
    Hop {
        parties: parties("orders-api", None),
        topic,
        passage: passage(Kind::Produced { acks: -1, attempt: 1, pending: None, throttle_ms: 0 }, 1042),
    }
}

/// A message that `billing` got, whose headers name its trace.
pub fn delivered() -> Hop {
    let delivery = identity::Delivery { correlation_id: 9, response_seq: 77 };
    let mut passage = passage(
        Kind::Delivered {
            lag: Some(3),
            delivery,
            times: Some(1),
            is_behind: false,
            is_uncommitted: false,
            is_catching_up: false,
            sent: Sent::Unknown,
            throttle_ms: 0,
        },
        1043,
    );
    passage.context = Some(Context {
        format: "w3c",
        trace_id: identity::derived_trace_id(0, 0, 0, None, None),
        span_id: Some(identity::send_span_id(passage.derived, "x")),
        state: Some("vendor=a,other=b".into()),
        others: [].into(),
    });
    let topic = Topic::Named(Topics::default().named("orders"));
    Hop { parties: parties("billing", Some("billing")), topic, passage }
}

/// What `billing` says of it, as a member of a share group.
pub fn acknowledged() -> Hop {
    let delivered = delivered();
    let open =
        Open { offset: 1043, trace_id: delivered.passage.trace_id(), span_id: SpanId::new([7; 8]).unwrap() };
    let of = Acknowledgement {
        of: AcknowledgeType::Accept,
        messages: 1,
        throttle_ms: 0,
        shown: vec![open],
        place: 7,
    };
    let derived = open.trace_id;
    let passage =
        Passage { end_ns: SENT_NS, ..Passage::settling(Kind::Acknowledged(of.into()), 2, 1043, derived) };
    Hop { passage, ..delivered }
}
