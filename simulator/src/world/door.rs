//! How callers reach members: see [`crate::client`].
use std::sync::Arc;

use quorate_auth::{AuthReader, Identity};
use quorate_core::{LiveStores, Proposal, Request, Submission, Token, View};
use quorate_mvcc::{Reader, WatchHub};
use quorate_proto::MemberId;

use super::{Event, World};
use crate::plan::FaultKind;

/// Of requests of clients that may be late, one in so many is.
const DELAYED_ONE_IN: u64 = 3;

/// What becomes of a request on its way from a client to a member.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Passage {
    /// It arrives at once.
    Arrives,
    /// It arrives after so many milliseconds.
    Late(u64),
    /// It never arrives.
    Lost,
}

impl World {
    /// Returns the true time, in milliseconds: that of all clients.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Says whether a member can be reached by clients.
    pub fn is_ready(&self, machine: u64) -> bool {
        let running = self.machines.get(&machine).and_then(|m| m.running.as_ref());
        running.is_some_and(|r| r.is_ready)
    }

    /// Lists the machines whose members can be reached by clients.
    pub fn ready(&self) -> Vec<u64> {
        let numbers = self.machines.keys().copied();
        numbers.filter(|n| self.is_ready(*n)).collect()
    }

    /// Says whether a member is about to install a snapshot, or is receiving one.
    pub(crate) fn awaits_snapshot(&self, machine: u64) -> bool {
        let running = self.machines.get(&machine).and_then(|m| m.running.as_ref());
        running.is_some_and(|r| r.install.is_some() || !r.arrivals.is_empty())
    }

    /// Returns the machine of a member.
    pub fn machine_of(&self, id: MemberId) -> Option<u64> {
        let machine = self.machines.values().find(|m| m.member_id == id);
        machine.map(|m| m.number)
    }

    /// Returns what a member's clock says: the time to give to its tokens and to its watch hub.
    pub fn member_now_ms(&self, machine: u64) -> u64 {
        let machine = self.machines.get(&machine);
        machine.map_or(self.now_ms, |m| m.clock.at(self.now_ms))
    }

    /// Returns the number of a member's present life; it changes with every start and end.
    pub fn life(&self, machine: u64) -> u64 {
        self.machines.get(&machine).map_or(0, |m| m.epoch)
    }

    /// Leaves a submission with a member; `None` when nobody is there. The answer comes as a note.
    pub fn submit(
        &mut self,
        machine: u64,
        make: impl FnOnce(Token) -> Submission,
    ) -> Option<Token> {
        if !self.is_ready(machine) {
            return None;
        }
        self.submit_anyway(machine, make)
    }

    /// The same, also to a member that does not serve clients yet.
    pub(crate) fn submit_anyway(
        &mut self,
        machine: u64,
        make: impl FnOnce(Token) -> Submission,
    ) -> Option<Token> {
        let token = Token(self.next_token);
        let running = self.machines.get_mut(&machine)?.running.as_mut()?;
        self.next_token += 1;
        running.inbox.push(make(token));
        if running.inbox.len() == 1 {
            let ms = self.random.below(2);
            self.after(ms, machine, Event::Inbox);
        }
        self.waiting.insert(token, machine);
        Some(token)
    }

    /// Leaves a request to be replicated.
    pub fn propose(&mut self, machine: u64, request: Request, identity: Identity) -> Option<Token> {
        self.submit(machine, |token| {
            Submission::Propose(Proposal {
                token,
                request,
                raw: None,
                identity,
            })
        })
    }

    /// Tells a member that the caller of a submission has gone. No note comes for it any more.
    pub fn cancel(&mut self, token: Token) {
        let Some(machine) = self.waiting.remove(&token) else {
            return;
        };
        self.cancelled.insert(token);
        self.operator.forget(token);
        let machine = self.machines.get_mut(&machine);
        if let Some(running) = machine.and_then(|m| m.running.as_mut()) {
            running.inbox.push(Submission::Cancel { token });
            let (number, is_first) = (running.number, running.inbox.len() == 1);
            if is_first {
                self.after(1, number, Event::Inbox);
            }
        }
    }

    /// Returns where a member's readers find its stores.
    pub fn live(&self, machine: u64) -> Option<LiveStores> {
        let running = self.machines.get(&machine)?.running.as_ref()?;
        Some(running.live.clone())
    }

    /// Returns a reader of a member's keys as they are now.
    pub fn reader(&self, machine: u64) -> Option<Reader> {
        Some(self.live(machine)?.reader())
    }

    /// Returns a member's window for others.
    pub fn view(&self, machine: u64) -> Option<Arc<View>> {
        Some(self.machines.get(&machine)?.member()?.view())
    }

    /// Returns a member's tokens and permissions.
    pub fn auth(&self, machine: u64) -> Option<AuthReader> {
        let member = self.machines.get(&machine)?.member()?;
        Some(member.stores().auth.reader())
    }

    /// Returns the watch hub of a member. Streams live as long as the member's present life.
    pub fn hub(&mut self, machine: u64) -> Option<&mut WatchHub<Reader>> {
        let running = self.machines.get_mut(&machine)?.running.as_mut()?;
        Some(&mut running.hub)
    }

    /// Asks for a member's watch hub to be moved on; to be called after every request and after taking output.
    pub fn nudge(&mut self, machine: u64) {
        let Some(machine) = self.machines.get_mut(&machine) else {
            return;
        };
        let number = machine.number;
        if let Some(running) = &mut machine.running
            && !std::mem::replace(&mut running.is_watch_due, true)
        {
            let ms = self.random.below(2);
            self.after(ms, number, Event::Watch);
        }
    }

    /// Draws what becomes of a request on its way from a client to a member.
    pub(crate) fn pass_request(&mut self) -> Passage {
        let loss = self.plan.faults.rate(FaultKind::ClientLoss);
        if self.befall(FaultKind::ClientLoss, loss).is_some() {
            return Passage::Lost;
        }
        let late_ms = self.befall(FaultKind::ClientDelay, DELAYED_ONE_IN);
        late_ms.map_or(Passage::Arrives, |ms| Passage::Late(1 + ms))
    }

    /// Draws whether an answer is lost on its way from a member to a client.
    pub(crate) fn loses_answer(&mut self) -> bool {
        let loss = self.plan.faults.rate(FaultKind::ClientLoss);
        self.befall(FaultKind::ClientLoss, loss).is_some()
    }

    /// Sets an alarm: [`crate::Note::Wake`] comes with this number.
    pub fn wake(&mut self, after_ms: u64, number: u64) {
        self.after(after_ms, 0, Event::Wake(number));
    }
}
