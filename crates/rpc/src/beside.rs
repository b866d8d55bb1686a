//! Work that would hold up a connection's thread, done beside it; and the room that large answers take until they are
//! read.
use std::time::Duration;

use quorate_mvcc::{Error, ReadLimit};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::message::{MESSAGE_MAX_BYTES, Message};
use crate::status::{Code, Status};

/// Hashes of passwords and histories made at one time in the whole process; they must leave the engine its processor.
const HASHES_MAX: usize = 2;

/// Large reads made at one time in the whole process.
const READS_MAX: usize = 2;

/// The most KiB that large answers of the whole process take, from before they are read until they are sent. A single
/// answer may have all of it and go beyond, up to the longest message there is.
const ROOM_KIB: u32 = 1024 * 1024;

/// The room that a large read gets at each attempt, in KiB; it begins anew with more when it needs more.
const ATTEMPTS_KIB: [u32; 3] = [16 * 1024, 128 * 1024, ROOM_KIB];

/// How long a large read waits for room before it is refused.
#[cfg(not(test))]
const ROOM_WAIT: Duration = Duration::from_secs(10);
#[cfg(test)]
const ROOM_WAIT: Duration = Duration::from_millis(20);

/// Answers from this size on take room; smaller ones only count on their connection.
pub(crate) const ROOMY_BYTES: usize = 1024 * 1024;

/// Reads within this limit are made on the connection's own thread.
pub(crate) const SMALL_READ: ReadLimit = ReadLimit {
    keys_max: 1_024,
    bytes_max: 256 * 1024,
};

static HASHES: Semaphore = Semaphore::const_new(HASHES_MAX);
static READS: Semaphore = Semaphore::const_new(READS_MAX);
static ROOM: Semaphore = Semaphore::const_new(ROOM_KIB as usize);

/// A part of the room for large answers; given back when it is dropped.
pub(crate) type Room = SemaphorePermit<'static>;

/// Takes room for an answer that is there already, when there is some left.
pub(crate) fn try_room(bytes: usize) -> Option<Room> {
    ROOM.try_acquire_many(kib(bytes)).ok()
}

/// Says whether large answers wait for others to be read.
pub(crate) fn is_room_short() -> bool {
    ROOM.available_permits() < ROOM_KIB as usize / 4
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).map_or(ROOM_KIB, |kib| kib.min(ROOM_KIB))
}

/// Makes a hash beside the connection's thread. Those that wait are dropped when their callers go away.
pub(crate) async fn hash_beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    beside(&HASHES, work).await
}

/// Runs something when it is its turn. The turn ends with the work, even when nobody waits for it any more.
async fn beside<T: Send + 'static>(
    turns: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    // Both fail only when the runtime is on its way out.
    let turn = turns.acquire().await.map_err(|_| Status::STOPPED)?;
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    })
    .await
    .map_err(|_| Status::STOPPED)
}

/// Makes a large read beside the connection's thread, and encodes its answer there. The answer holds room until it is
/// sent; while there is none, reads wait in line.
pub(crate) async fn read_beside<M: Send + 'static>(
    mut read: impl Fn(ReadLimit) -> Result<(Message, M), Error> + Send + 'static,
) -> Result<(Message, M), Status> {
    for room_kib in ATTEMPTS_KIB {
        let room = room(room_kib).await?;
        let limit = ReadLimit {
            keys_max: usize::MAX,
            bytes_max: bytes_max(room_kib),
        };
        let made = beside(&READS, move || (read(limit), read, room)).await?;
        let (answer, room);
        (answer, read, room) = made;
        match answer {
            Ok((message, more)) => return Ok((keep(message, room), more)),
            Err(Error::TooLarge) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // No client would take it: it is refused without finding out how long it is.
    let text = format!(
        "grpc: trying to send message larger than max ({} vs. {MESSAGE_MAX_BYTES})",
        MESSAGE_MAX_BYTES + 1
    );
    Err(Status::new(Code::ResourceExhausted, text))
}

/// Makes one piece of a longer answer beside the connection's thread; `bytes` is about how long it may be.
pub(crate) async fn piece_beside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> (T, Result<Option<Message>, Error>) + Send + 'static,
) -> Result<(T, Option<Message>), Status> {
    let room = room(kib(bytes)).await?;
    let ((rest, piece), room) = beside(&READS, move || (work(), room)).await?;
    Ok((rest, piece?.map(|piece| keep(piece, room))))
}

async fn room(kib: u32) -> Result<Room, Status> {
    match tokio::time::timeout(ROOM_WAIT, ROOM.acquire_many(kib)).await {
        Ok(room) => room.map_err(|_| Status::STOPPED),
        Err(_) => Err(Status::UNREAD_ANSWERS),
    }
}

/// Returns how many bytes a read with so much room may hold: what it reads is copied once more to be sent.
fn bytes_max(room_kib: u32) -> usize {
    if room_kib == ROOM_KIB {
        MESSAGE_MAX_BYTES
    } else {
        room_kib as usize * 1024 / 2
    }
}

/// Keeps as much of the room as the answer itself takes.
fn keep(mut message: Message, mut room: Room) -> Message {
    let needed = kib(message.wire_len()) as usize;
    if let Some(spare) = room.num_permits().checked_sub(needed) {
        drop(room.split(spare));
    }
    message.keep_room(room);
    message
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use quorate_proto::etcdserverpb::PutResponse;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test)
    }

    // One test: the room is the whole process'.
    #[test]
    fn room_grows_with_the_attempts_and_is_kept_until_the_answer_is_dropped() {
        run(async {
            let all = ROOM_KIB as usize;
            let attempts = Arc::new(AtomicUsize::new(0));
            let counted = attempts.clone();
            let (message, ()) = read_beside(move |limit| {
                counted.fetch_add(1, Ordering::SeqCst);
                if limit.bytes_max < 20 << 20 {
                    return Err(Error::TooLarge);
                }
                Ok((Message::encode(&PutResponse::default()), ()))
            })
            .await
            .unwrap();
            assert_eq!(attempts.load(Ordering::SeqCst), 2);
            assert_eq!(ROOM.available_permits(), all - 1);
            let copy = message.clone();
            drop(message);
            assert_eq!(ROOM.available_permits(), all - 1);
            drop(copy);
            assert_eq!(ROOM.available_permits(), all);

            let endless = read_beside::<()>(|_| Err(Error::TooLarge))
                .await
                .unwrap_err();
            assert_eq!(endless.code(), Code::ResourceExhausted);
            assert_eq!(ROOM.available_permits(), all);

            let taken = try_room(all * 1024).unwrap();
            assert!(is_room_short() && try_room(ROOMY_BYTES).is_none());
            let refused = read_beside(|_| Ok((Message::default(), ())))
                .await
                .unwrap_err();
            assert_eq!(refused, Status::UNREAD_ANSWERS);
            drop(taken);
            assert!(!is_room_short());
        });
    }

    #[test]
    fn a_turn_lasts_as_long_as_the_work_whoever_waits_for_it() {
        static TURNS: Semaphore = Semaphore::const_new(1);
        run(async {
            let (begun, is_begun) = tokio::sync::oneshot::channel();
            let (end, is_ended) = std::sync::mpsc::channel::<()>();
            let mut work = Box::pin(beside(&TURNS, move || {
                let _ = begun.send(());
                is_ended.recv().unwrap();
            }));
            tokio::select! {
                _ = &mut work => unreachable!("it is told to end below"),
                begun = is_begun => begun.unwrap(),
            }
            drop(work);
            assert_eq!(TURNS.available_permits(), 0);
            end.send(()).unwrap();
            while TURNS.available_permits() == 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
