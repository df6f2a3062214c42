//! AddPartitionsToTxn (key 24), versions 0–5: what a transaction writes to.
//!
//! KIP-98, KIP-482 (flexible, v3), KIP-890 (several transactions, asked by brokers, v4, v5).

use super::answers::Answers;
use super::event::{Emit, Event, Transaction};
use super::exchange::{Emits, Exchange};
use super::list::{List, NO_IDS, OfTopic, Struct};
use super::offset_commit::Outcome;
use super::reader::{Reader, Result};

/// The [`Exchange`] of AddPartitionsToTxn.
pub struct AddPartitionsToTxn;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Before version 4.
    pub alone: Option<Added<'a>>,
    pub transactions: List<'a, Added<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Added<'a> {
    pub transaction: Transaction<'a>,
    /// Nothing is added, a broker only asks whether it was.
    pub verify_only: bool,
    pub topics: List<'a, OfTopic<'a, i32, NO_IDS>>,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let mut request = Self { alone: None, transactions: List::empty() };
        if version >= 4 {
            request.transactions = List::read(version, body, "transactions")?;
        } else {
            request.alone = Some(Added::read_fields(version, body)?);
        }
        body.skip_tagged_fields()?;
        Ok(request)
    }
}

impl<'a> Added<'a> {
    fn read_fields(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let transaction = Transaction::read(version, body)?;
        let verify_only = if version >= 4 { body.bool("verify only")? } else { false };
        let topics = List::read(version, body, "topics")?;
        Ok(Self { transaction, verify_only, topics })
    }
}

impl<'a> Struct<'a> for Added<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let added = Self::read_fields(version, body)?;
        body.skip_tagged_fields()?;
        Ok(added)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// From version 4 on.
    pub error_code: i16,
    /// Before version 4: of the request's transaction.
    pub alone: List<'a, OfTopic<'a, Outcome, NO_IDS>>,
    pub transactions: List<'a, Outcomes<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Outcomes<'a> {
    pub transactional_id: &'a str,
    pub topics: List<'a, OfTopic<'a, Outcome, NO_IDS>>,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let mut response = Self { error_code: 0, alone: List::empty(), transactions: List::empty() };
        if version >= 4 {
            response.error_code = body.i16("error code")?;
            response.transactions = List::read(version, body, "results by transaction")?;
        } else {
            response.alone = List::read(version, body, "results by topic")?;
        }
        body.skip_tagged_fields()?;
        Ok(response)
    }
}

impl<'a> Struct<'a> for Outcomes<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let transactional_id = body.string("transactional id")?;
        let topics = List::read(version, body, "topic results")?;
        body.skip_tagged_fields()?;
        Ok(Self { transactional_id, topics })
    }
}

impl Exchange for AddPartitionsToTxn {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for AddPartitionsToTxn {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        // The request's own transaction has no name in the answer: none is there beside it.
        let alone = response.alone.partitions().map(|(topic, of)| (("", topic, of.partition), of.error_code));
        let named = response.transactions.iter().flat_map(|outcomes| {
            let id = outcomes.transactional_id;
            outcomes.topics.partitions().map(move |(topic, of)| ((id, topic, of.partition), of.error_code))
        });
        let mut answers = Answers::new(alone.chain(named));
        for added in request.alone.into_iter().chain(request.transactions.iter()) {
            let transaction = added.transaction;
            let id = if request.alone.is_some() { "" } else { transaction.transactional_id };
            for (topic, partition) in added.topics.partitions() {
                let answer = answers.of((id, topic, partition));
                let error = if response.error_code != 0 { Some(response.error_code) } else { answer };
                let Some(error) = error.filter(|_| !added.verify_only) else { continue };
                emit(&Event::TransactionPartition { transaction, topic, partition, error });
            }
        }
    }
}
