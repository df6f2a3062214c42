//! The heartbeat of a member in the protocols whose groups are assigned by it: KIP-848, KIP-932,
//! KIP-1071.

use super::event::{Emit, Event, GroupProtocol, Member, MemberState};

/// What a heartbeat's request says of its member.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat<'a> {
    pub group_id: &'a str,
    pub member_id: &'a str,
    /// 0 to join, −1 to leave, −2 for a static member that leaves for a while.
    pub member_epoch: i32,
    pub instance_id: Option<&'a str>,
}

/// What its response says of the member.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// 0 for none.
    pub error_code: i16,
    /// `None` where it is the request's.
    pub member_id: Option<&'a str>,
    pub member_epoch: i32,
}

/// A member that the response may assign something to.
#[derive(Clone, Copy, Debug)]
pub struct Assignee<'a> {
    pub group_id: &'a str,
    pub member_id: &'a str,
    pub epoch: i32,
}

impl<'a> Heartbeat<'a> {
    /// Emits the member. Gives who may be assigned something, `None` where the response has an
    /// error.
    pub fn emit(
        &self,
        protocol: GroupProtocol,
        answer: Answer<'a>,
        emit: &mut Emit<'_>,
    ) -> Option<Assignee<'a>> {
        let group_id = self.group_id;
        let member_id = answer.member_id.unwrap_or(self.member_id);
        let granted = answer.error_code == 0;
        let epoch = if granted { answer.member_epoch } else { self.member_epoch };
        emit(&Event::Member(Member {
            protocol,
            group_id,
            member_id,
            instance_id: self.instance_id,
            generation_or_epoch: epoch,
            state: MemberState::of_epoch(self.member_epoch),
            error: answer.error_code,
        }));
        granted.then_some(Assignee { group_id, member_id, epoch })
    }
}

impl Assignee<'_> {
    /// Emits that an assignment begins.
    pub fn begin(&self, emit: &mut Emit<'_>) {
        let Self { group_id, member_id, epoch } = *self;
        emit(&Event::AssignmentBegins { group_id, member_id, generation_or_epoch: epoch });
    }
}
