//! What comes from other members, on its way to the engine.
use std::path::PathBuf;

use quorate_proto::MemberId;
use quorate_proto::raftpb::Message;
use quorate_transport::Receiver;

use crate::installer::Installer;
use crate::queue::{Event, Queue};

/// Puts what arrives into the engine's inbox.
pub(crate) struct Inlet {
    pub(crate) queue: Queue,
    pub(crate) installer: Installer,
}

impl Receiver for Inlet {
    fn messages(&self, messages: Vec<Message>) -> usize {
        self.queue.push_messages(messages)
    }

    fn snapshot(&self, message: Message, image: PathBuf) {
        self.installer.receive(message, image);
    }

    fn unreachable(&self, id: MemberId) {
        self.queue.push_unreachable(id);
    }

    fn snapshot_sent(&self, id: MemberId, ok: bool) {
        self.queue.push(Event::SnapshotSent { id, ok });
    }

    fn removed(&self) {
        self.queue.push(Event::Removed);
    }
}
