//! LeaveGroup (key 13), versions 0–5: members of a classic group go, or are sent away by an admin.
//!
//! KIP-124 (throttle time, v1), KIP-345 (several members, v3), KIP-482 (flexible, v4), KIP-800
//! (reason, v5).

use super::answers::Answers;
use super::event::{Emit, Event, GroupProtocol, Member, MemberState};
use super::exchange::{Emits, Exchange};
use super::list::{List, Struct};
use super::reader::{Reader, Result};

/// The [`Exchange`] of LeaveGroup.
pub struct LeaveGroup;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub group_id: &'a str,
    /// Before version 3.
    pub alone: Option<Leaving<'a>>,
    pub members: List<'a, Leaving<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leaving<'a> {
    /// Empty where the instance id alone is known.
    pub member_id: &'a str,
    pub group_instance_id: Option<&'a str>,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let group_id = body.string("group id")?;
        let mut request = Self { group_id, alone: None, members: List::empty() };
        if version >= 3 {
            request.members = List::read(version, body, "members")?;
        } else {
            let member_id = body.string("member id")?;
            request.alone = Some(Leaving { member_id, group_instance_id: None });
        }
        body.skip_tagged_fields()?;
        Ok(request)
    }
}

impl<'a> Struct<'a> for Leaving<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let member_id = body.string("member id")?;
        let group_instance_id = body.nullable_string("group instance id")?;
        if version >= 5 {
            body.nullable_string("reason")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { member_id, group_instance_id })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub error_code: i16,
    /// From version 3 on.
    pub members: List<'a, Left<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    pub member: Leaving<'a>,
    pub error_code: i16,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 1 {
            body.i32("throttle time")?;
        }
        let error_code = body.i16("error code")?;
        let members = if version >= 3 { List::read(version, body, "members")? } else { List::empty() };
        body.skip_tagged_fields()?;
        Ok(Self { error_code, members })
    }
}

impl<'a> Struct<'a> for Left<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let member_id = body.string("member id")?;
        let group_instance_id = body.nullable_string("group instance id")?;
        let error_code = body.i16("error code")?;
        body.skip_tagged_fields()?;
        Ok(Self { member: Leaving { member_id, group_instance_id }, error_code })
    }
}

impl Exchange for LeaveGroup {
    const THROTTLED_SINCE: i16 = 1;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for LeaveGroup {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let mut answers = Answers::new(response.members.iter().map(|left| (left.member, left.error_code)));
        for member in request.alone.into_iter().chain(request.members.iter()) {
            let error = answers.of(member).unwrap_or(0);
            emit(&Event::Member(Member {
                protocol: GroupProtocol::Classic,
                group_id: request.group_id,
                member_id: member.member_id,
                instance_id: member.group_instance_id,
                generation_or_epoch: -1,
                state: MemberState::Leaving,
                error: if response.error_code != 0 { response.error_code } else { error },
            }));
        }
    }
}
