//! What comes from other members, on its way to the engine.
use std::path::PathBuf;

use quorate_proto::MemberId;
use quorate_proto::raftpb::{Message, MessageType};
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
        let (messages, strays) = without_snapshots(messages);
        strays + self.queue.push_messages(messages)
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

/// Takes out snapshots that come without an image, and counts them: one whose mark got into the log would leave this member without
/// any state to start with.
fn without_snapshots(mut messages: Vec<Message>) -> (Vec<Message>, usize) {
    let count = messages.len();
    messages.retain(|message| message.r#type() != MessageType::MsgSnap);
    let strays = count - messages.len();
    if strays > 0 {
        tracing::warn!(count = strays, "refused snapshots without an image");
    }
    (messages, strays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_without_an_image_goes_nowhere() {
        let of = |kind: MessageType| Message {
            r#type: Some(kind.into()),
            ..Message::default()
        };
        let kinds = [
            MessageType::MsgApp,
            MessageType::MsgSnap,
            MessageType::MsgHeartbeat,
        ];
        let (left, strays) = without_snapshots(kinds.map(of).to_vec());
        assert_eq!(left, [kinds[0], kinds[2]].map(of));
        assert_eq!(strays, 1);
    }
}
