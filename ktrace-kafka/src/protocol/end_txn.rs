//! EndTxn (key 26), versions 0–5: a transaction is committed or aborted.
//!
//! KIP-98, KIP-588 (v2), KIP-482 (flexible, v3), KIP-890 (v4; the producer's next epoch, v5).

use super::event::{Emit, Event, Transaction};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of EndTxn.
pub struct EndTxn;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub transaction: Transaction<'a>,
    pub committed: bool,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let transaction = Transaction::read(version, body)?;
        let committed = body.bool("committed")?;
        body.skip_tagged_fields()?;
        Ok(Self { transaction, committed })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response {
    pub error_code: i16,
    /// The id and epoch of the producer's next transaction, from version 5 on.
    pub next: Option<(i64, i16)>,
}

impl<'a> Struct<'a> for Response {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let error_code = body.i16("error code")?;
        let next =
            if version >= 5 { Some((body.i64("producer id")?, body.i16("producer epoch")?)) } else { None };
        body.skip_tagged_fields()?;
        Ok(Self { error_code, next })
    }
}

impl Exchange for EndTxn {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response;
}

impl Emits for EndTxn {
    fn emit(request: &Request<'_>, response: &Response, emit: &mut Emit<'_>) {
        let Request { transaction, committed } = *request;
        emit(&Event::TransactionEnd { transaction, committed, error: response.error_code });
        if let Some((producer_id, producer_epoch)) = response.next
            && response.error_code == 0
        {
            emit(&Event::Producer {
                transactional_id: Some(transaction.transactional_id),
                producer_id,
                producer_epoch,
                error: 0,
            });
        }
    }
}
