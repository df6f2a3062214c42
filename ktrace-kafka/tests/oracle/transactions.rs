//! Producers and their transactions.

use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use ktrace_kafka::{Committed, Event, Topic, Transaction};

use crate::random::{Random, message};
use crate::{Case, shown};

pub fn init_producer_id(g: &mut Random) -> Case {
    let v = g.version;
    let request = message!(g, InitProducerIdRequest {
        transactional_id => g.nullable_string().map(TransactionalId),
        transaction_timeout_ms => g.i32(),
        producer_id if v >= 3 => ProducerId(g.i64()),
        producer_epoch if v >= 3 => g.i16(),
    });
    let response = message!(g, InitProducerIdResponse {
        throttle_time_ms => g.i32(),
        error_code => g.error(),
        producer_id => ProducerId(g.i64()),
        producer_epoch => g.i16(),
    });
    let expected = vec![shown(&Event::Producer {
        transactional_id: request.transactional_id.as_ref().map(|id| &***id),
        producer_id: *response.producer_id,
        producer_epoch: response.producer_epoch,
        error: response.error_code,
    })];
    g.case(&request, &response, expected)
}

pub fn add_partitions_to_txn(g: &mut Random) -> Case {
    use add_partitions_to_txn_request::*;
    use add_partitions_to_txn_response::*;
    let v = g.version;
    let topics = |g: &mut Random| {
        g.list(|g, index| {
            message!(g, AddPartitionsToTxnTopic {
                name => g.topic(index),
                partitions => g.list(|g, index| g.partition(index)),
            })
        })
    };
    let request = message!(g, AddPartitionsToTxnRequest {
        transactions if v >= 4 => g.list(|g, index| message!(g, AddPartitionsToTxnTransaction {
            transactional_id => TransactionalId(StrBytes::from_string(format!("{index}{}", g.text()))),
            producer_id => ProducerId(g.i64()),
            producer_epoch => g.i16(),
            verify_only => g.below(4) == 0,
            topics => topics(g),
        })),
        v3_and_below_transactional_id if v < 4 => TransactionalId(g.string()),
        v3_and_below_producer_id if v < 4 => ProducerId(g.i64()),
        v3_and_below_producer_epoch if v < 4 => g.i16(),
        v3_and_below_topics if v < 4 => topics(g),
    });
    let results = |g: &mut Random, topics: &[AddPartitionsToTxnTopic]| {
        let topics = topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                message!(g, AddPartitionsToTxnPartitionResult {
                    partition_index => *partition,
                    partition_error_code => g.error(),
                })
            });
            let partitions = partitions.collect();
            message!(g, AddPartitionsToTxnTopicResult {
                name => topic.name.clone(),
                results_by_partition => g.shuffled(partitions),
            })
        });
        let topics = topics.collect();
        g.shuffled(topics)
    };
    let by_transaction = request.transactions.iter().map(|transaction| {
        message!(g, AddPartitionsToTxnResult {
            transactional_id => transaction.transactional_id.clone(),
            topic_results => results(g, &transaction.topics),
        })
    });
    let by_transaction = by_transaction.collect();
    let response = message!(g, AddPartitionsToTxnResponse {
        throttle_time_ms => g.i32(),
        error_code if v >= 4 => g.error(),
        results_by_transaction if v >= 4 => g.shuffled(by_transaction),
        results_by_topic_v3_and_below if v < 4 => results(g, &request.v3_and_below_topics),
    });
    let mut expected = vec![];
    let mut reported =
        |transaction, topics: &[AddPartitionsToTxnTopic], results: &[AddPartitionsToTxnTopicResult]| {
            for topic in topics {
                let result = results.iter().find(|result| result.name == topic.name).unwrap();
                for &partition in &topic.partitions {
                    let result = result.results_by_partition.iter().find(|r| r.partition_index == partition);
                    let error = result.unwrap().partition_error_code;
                    expected.push(shown(&Event::TransactionPartition {
                        transaction,
                        topic: Topic::Name(&topic.name),
                        partition,
                        error: if response.error_code == 0 { error } else { response.error_code },
                    }));
                }
            }
        };
    if v < 4 {
        let transaction = Transaction {
            transactional_id: &request.v3_and_below_transactional_id,
            producer_id: *request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
        };
        reported(transaction, &request.v3_and_below_topics, &response.results_by_topic_v3_and_below);
    }
    for of in request.transactions.iter().filter(|of| !of.verify_only) {
        let transaction = Transaction {
            transactional_id: &of.transactional_id,
            producer_id: *of.producer_id,
            producer_epoch: of.producer_epoch,
        };
        let mut results = response.results_by_transaction.iter();
        let result = results.find(|result| result.transactional_id == of.transactional_id);
        reported(transaction, &of.topics, &result.unwrap().topic_results);
    }
    g.case(&request, &response, expected)
}

pub fn add_offsets_to_txn(g: &mut Random) -> Case {
    let request = message!(g, AddOffsetsToTxnRequest {
        transactional_id => TransactionalId(g.string()),
        producer_id => ProducerId(g.i64()),
        producer_epoch => g.i16(),
        group_id => GroupId(g.string()),
    });
    let response = message!(g, AddOffsetsToTxnResponse {
        throttle_time_ms => g.i32(),
        error_code => g.error(),
    });
    let transaction = Transaction {
        transactional_id: &request.transactional_id,
        producer_id: *request.producer_id,
        producer_epoch: request.producer_epoch,
    };
    let (group_id, error) = (&*request.group_id, response.error_code);
    let expected = vec![shown(&Event::TransactionGroup { transaction, group_id, error })];
    g.case(&request, &response, expected)
}

pub fn end_txn(g: &mut Random) -> Case {
    let v = g.version;
    let request = message!(g, EndTxnRequest {
        transactional_id => TransactionalId(g.string()),
        producer_id => ProducerId(g.i64()),
        producer_epoch => g.i16(),
        committed => g.bool(),
    });
    let response = message!(g, EndTxnResponse {
        throttle_time_ms => g.i32(),
        error_code => g.error(),
        producer_id if v >= 5 => ProducerId(g.i64()),
        producer_epoch if v >= 5 => g.i16(),
    });
    let transactional_id = &*request.transactional_id;
    let transaction = Transaction {
        transactional_id,
        producer_id: *request.producer_id,
        producer_epoch: request.producer_epoch,
    };
    let (committed, error) = (request.committed, response.error_code);
    let mut expected = vec![shown(&Event::TransactionEnd { transaction, committed, error })];
    if v >= 5 && error == 0 {
        expected.push(shown(&Event::Producer {
            transactional_id: Some(transactional_id),
            producer_id: *response.producer_id,
            producer_epoch: response.producer_epoch,
            error: 0,
        }));
    }
    g.case(&request, &response, expected)
}

pub fn txn_offset_commit(g: &mut Random) -> Case {
    use txn_offset_commit_request::*;
    use txn_offset_commit_response::*;
    let v = g.version;
    let request = message!(g, TxnOffsetCommitRequest {
        transactional_id => TransactionalId(g.string()),
        group_id => GroupId(g.string()),
        producer_id => ProducerId(g.i64()),
        producer_epoch => g.i16(),
        generation_id if v >= 3 => g.i32(),
        member_id if v >= 3 => g.string(),
        group_instance_id if v >= 3 => g.nullable_string(),
        topics => g.list(|g, index| message!(g, TxnOffsetCommitRequestTopic {
            name => g.topic(index),
            partitions => g.list(|g, index| message!(g, TxnOffsetCommitRequestPartition {
                partition_index => g.partition(index),
                committed_offset => g.i64(),
                committed_leader_epoch if v >= 2 => g.i32(),
                committed_metadata => g.nullable_string(),
            })),
        })),
    });
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            message!(g, TxnOffsetCommitResponsePartition {
                partition_index => partition.partition_index,
                error_code => g.error(),
            })
        });
        let partitions = partitions.collect();
        message!(g, TxnOffsetCommitResponseTopic {
            name => topic.name.clone(),
            partitions => g.shuffled(partitions),
        })
    });
    let topics = topics.collect();
    let response = message!(g, TxnOffsetCommitResponse {
        throttle_time_ms => g.i32(),
        topics => g.shuffled(topics),
    });
    let transaction = Transaction {
        transactional_id: &request.transactional_id,
        producer_id: *request.producer_id,
        producer_epoch: request.producer_epoch,
    };
    let mut expected = vec![];
    for topic in &request.topics {
        let answers = response.topics.iter().find(|answer| answer.name == topic.name).unwrap();
        for commit in &topic.partitions {
            let answer = answers.partitions.iter().find(|a| a.partition_index == commit.partition_index);
            expected.push(shown(&Event::Committed(Committed {
                group_id: &request.group_id,
                member_id: &request.member_id,
                generation_or_epoch: request.generation_id,
                topic: Topic::Name(&topic.name),
                partition: commit.partition_index,
                offset: commit.committed_offset,
                leader_epoch: commit.committed_leader_epoch,
                transaction: Some(transaction),
                error: answer.unwrap().error_code,
            })));
        }
    }
    g.case(&request, &response, expected)
}
