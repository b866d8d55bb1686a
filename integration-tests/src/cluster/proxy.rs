//! The wires between members: every byte from one to another passes here, each direction under rules of its own.
//!
//! Each member has a door, the address that the others know it by, and the proxy carries what comes in there to where the member
//! really listens. Who knocks is told from the system's table of connections. A connection from A to B
//! then carries bytes of A to B under the rules of that direction, and bytes back under those of the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::dialers::Dialers;
use crate::failure::Outcome;
use crate::random::Random;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 16 * 1_024;
/// Chunks under way in one direction of a connection; then the sender has to wait.
const CHUNKS_MAX: usize = 64;
/// What a lost packet costs: the time until it is sent again.
const RESEND: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(400));
/// One loss in so many ends the connection.
const LOSSES_PER_RESET: u64 = 50;
/// How often the owner of a new connection is looked for.
const LOOKS_MAX: usize = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// What happens to bytes on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// They arrive.
    #[default]
    Open,
    /// They wait; nothing new can be connected.
    Cut,
    /// They vanish, and the sender does not notice. A connection that has lost bytes ends when the wire is open again: no real
    /// network lets a connection go on without them.
    Swallow,
}

/// The rules of one direction between two members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Whether bytes arrive.
    pub way: Way,
    /// How long they take.
    pub delay: Duration,
    /// How much longer at most, at random.
    pub jitter: Duration,
    /// Chunks in a thousand that are lost and sent again.
    pub loss_per_mille: u64,
    /// The most bytes in a second, 0 for no limit.
    pub bytes_per_s: u64,
    /// Chunks in a thousand in which one bit arrives changed.
    pub flips_per_mille: u64,
    /// Connections are dropped whenever this changes.
    resets: u64,
}

impl Rules {
    /// As if there were no proxy.
    pub const OPEN: Rules = Rules {
        way: Way::Open,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss_per_mille: 0,
        bytes_per_s: 0,
        flips_per_mille: 0,
        resets: 0,
    };
    /// Bytes wait.
    pub const CUT: Rules = Rules {
        way: Way::Cut,
        ..Rules::OPEN
    };
    /// Bytes vanish.
    pub const SWALLOW: Rules = Rules {
        way: Way::Swallow,
        ..Rules::OPEN
    };

    /// Bytes take so many milliseconds, and up to `jitter_ms` more.
    #[must_use]
    pub const fn slow(delay_ms: u64, jitter_ms: u64) -> Rules {
        Rules {
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::from_millis(jitter_ms),
            ..Rules::OPEN
        }
    }

    /// So many chunks in a thousand are lost and sent again.
    #[must_use]
    pub const fn lossy(per_mille: u64) -> Rules {
        Rules {
            loss_per_mille: per_mille,
            ..Rules::OPEN
        }
    }

    /// In so many chunks in a thousand a bit is changed.
    #[must_use]
    pub const fn flipping(per_mille: u64) -> Rules {
        Rules {
            flips_per_mille: per_mille,
            ..Rules::OPEN
        }
    }

    /// At most so many bytes in a second.
    #[must_use]
    pub const fn narrow(bytes_per_s: u64) -> Rules {
        Rules {
            bytes_per_s,
            ..Rules::OPEN
        }
    }
}

/// The number of a member of a harness.
pub type Place = usize;
type Wire = (Place, Place);

#[derive(Debug)]
struct Shared {
    wires: Mutex<BTreeMap<Wire, watch::Sender<Rules>>>,
    dialers: Dialers,
    random: Mutex<Random>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn subscribe(&self, wire: Wire) -> watch::Receiver<Rules> {
        let mut wires = locked(&self.wires);
        let sender = wires
            .entry(wire)
            .or_insert_with(|| watch::channel(Rules::default()).0);
        sender.subscribe()
    }

    fn random(&self) -> Random {
        Random::new(locked(&self.random).number())
    }
}

/// The proxy of a cluster, on a thread of its own.
#[derive(Debug)]
pub struct Network {
    shared: Arc<Shared>,
    doors: mpsc::UnboundedSender<(Place, std::net::TcpListener, SocketAddr)>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// A proxy without doors.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn new(seed: u64) -> Outcome<Network> {
        let shared = Arc::new(Shared {
            wires: Mutex::default(),
            dialers: Dialers::new()?,
            random: Mutex::new(Random::new(seed)),
        });
        let (doors, new_doors) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(of_thread, new_doors) => {}
                        _ = ended => {}
                    }
                });
            })?;
        Ok(Network {
            shared,
            doors,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Opens the door of a member.
    ///
    /// # Errors
    /// The port is taken.
    pub fn open_door(&self, place: Place, port: u16, to: u16) -> Outcome {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let to = SocketAddr::from(([127, 0, 0, 1], to));
        // The thread ends only with this value.
        let _ = self.doors.send((place, listener, to));
        Ok(())
    }

    /// Says which process a member is.
    pub fn set_process(&self, place: Place, pid: u32) {
        self.shared.dialers.set_process(place, pid);
    }

    /// Sets the rules from one member to another, in this direction only.
    pub fn set(&self, from: Place, to: Place, rules: Rules) {
        self.change(from, to, |old| {
            *old = Rules {
                resets: old.resets,
                ..rules
            };
        });
    }

    fn change(&self, from: Place, to: Place, change: impl FnOnce(&mut Rules)) {
        let wire = (from, to);
        drop(self.shared.subscribe(wire));
        if let Some(sender) = locked(&self.shared.wires).get(&wire) {
            sender.send_modify(change);
        }
    }

    /// Drops every connection between two members.
    pub fn reset(&self, one: Place, other: Place) {
        self.change(one, other, |rules| rules.resets += 1);
        self.change(other, one, |rules| rules.resets += 1);
    }

    /// Puts every wire in order again.
    pub fn heal(&self) {
        let wires: Vec<Wire> = locked(&self.shared.wires).keys().copied().collect();
        for (from, to) in wires {
            self.set(from, to, Rules::OPEN);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    mut doors: mpsc::UnboundedReceiver<(Place, std::net::TcpListener, SocketAddr)>,
) {
    while let Some((place, listener, to)) = doors.recv().await {
        let Ok(listener) = TcpListener::from_std(listener) else {
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { carry(&shared, stream, from, place, to).await });
            }
        });
    }
    std::future::pending().await
}

/// Carries one connection until it ends.
async fn carry(shared: &Shared, stream: TcpStream, from: SocketAddr, to: Place, door: SocketAddr) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let Some(dialer) = find_dialer(shared, from, local).await else {
        return;
    };
    let (forth, back) = (
        shared.subscribe((dialer, to)),
        shared.subscribe((to, dialer)),
    );
    if !is_connected(forth.clone(), back.clone()).await {
        return;
    }
    let Ok(target) = TcpStream::connect(door).await else {
        return;
    };
    // What is delayed on purpose should not be delayed otherwise.
    let _ = (stream.set_nodelay(true), target.set_nodelay(true));
    let (read, write) = stream.into_split();
    let (target_read, target_write) = target.into_split();
    let both = async {
        tokio::try_join!(
            flow(read, target_write, forth.clone(), shared.random()),
            flow(target_read, write, back.clone(), shared.random()),
        )
    };
    tokio::select! {
        _ = both => {}
        () = reset(forth.clone()) => {}
        () = reset(back.clone()) => {}
    }
}

/// Waits until a connection can be made.
async fn is_connected(mut forth: watch::Receiver<Rules>, mut back: watch::Receiver<Rules>) -> bool {
    let is_open = |rules: &Rules| rules.way == Way::Open;
    loop {
        let delay = match forth.wait_for(is_open).await {
            Ok(rules) => rules.delay,
            Err(_) => return false,
        };
        sleep(delay).await;
        if back.wait_for(is_open).await.is_err() {
            return false;
        }
        if is_open(&forth.borrow()) {
            return true;
        }
    }
}

/// Ends when connections are dropped.
async fn reset(mut rules: watch::Receiver<Rules>) {
    let now = rules.borrow().resets;
    // Without a sender nothing will be reset any more.
    if rules.wait_for(|rules| rules.resets != now).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A connection that can carry nothing more.
struct Broken;

/// Carries one direction until its end, which the other side is told.
async fn flow(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut rules: watch::Receiver<Rules>,
    mut random: Random,
) -> Result<(), Broken> {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let now = rules.clone();
    let collection = async move {
        let mut arrival = Instant::now();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let len = from.read(&mut chunk).await.map_err(|_| Broken)?;
            if len == 0 {
                return Ok(());
            }
            let rules = *now.borrow();
            let time = travel_time(&rules, len, &mut random).ok_or(Broken)?;
            flip(&rules, &mut chunk[..len], &mut random);
            // Bytes of a connection keep their order.
            arrival = arrival.max(Instant::now() + time);
            let sent = queue.send((arrival, chunk[..len].to_vec())).await;
            sent.map_err(|_| Broken)?;
        }
    };
    let delivery = async move {
        while let Some((arrival, chunk)) = queued.recv().await {
            sleep_until(arrival).await;
            let open = rules.wait_for(|rules| rules.way != Way::Cut).await;
            if open.map_err(|_| Broken)?.way == Way::Swallow {
                tokio::select! {
                    _ = rules.wait_for(|rules| rules.way != Way::Swallow) => {}
                    () = discard(&mut queued) => {}
                }
                return Err(Broken);
            }
            to.write_all(&chunk).await.map_err(|_| Broken)?;
        }
        to.shutdown().await.map_err(|_| Broken)
    };
    tokio::try_join!(collection, delivery).map(drop)
}

/// Throws away whatever comes, for ever.
async fn discard(queued: &mut mpsc::Receiver<(Instant, Vec<u8>)>) {
    while queued.recv().await.is_some() {}
    std::future::pending().await
}

/// Changes a bit of a chunk, now and then.
fn flip(rules: &Rules, chunk: &mut [u8], random: &mut Random) {
    if rules.flips_per_mille > random.below(1_000) {
        let len = u64::try_from(chunk.len()).unwrap_or(1);
        let at = usize::try_from(random.below(len)).unwrap_or_default();
        chunk[at] ^= 1 << random.below(8);
    }
}

/// How long a chunk takes; `None` when the connection breaks.
fn travel_time(rules: &Rules, len: usize, random: &mut Random) -> Option<Duration> {
    let mut time = rules.delay + random.between(Duration::ZERO, rules.jitter);
    if rules.loss_per_mille > 0 && random.below(1_000) < rules.loss_per_mille {
        if random.one_in(LOSSES_PER_RESET) {
            return None;
        }
        time += random.between(RESEND.0, RESEND.1);
    }
    let bytes = u64::try_from(len).unwrap_or(u64::MAX);
    let on_the_way = bytes
        .saturating_mul(1_000_000)
        .checked_div(rules.bytes_per_s);
    time += Duration::from_micros(on_the_way.unwrap_or_default());
    Some(time)
}

/// Finds the member whose process has the other end of a connection.
async fn find_dialer(shared: &Shared, from: SocketAddr, local: SocketAddr) -> Option<Place> {
    for _ in 0..LOOKS_MAX {
        let found = shared.dialers.find(from, local).await;
        if found.is_some() {
            return found;
        }
        sleep(LOOK_PAUSE).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::ports::free_port;

    /// Long enough for bytes that are not held back.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// How long one looks for bytes that must not come.
    const GLANCE: Duration = Duration::from_millis(100);

    /// A connection through a network on which this process is member 1, and member 0 too.
    fn connect() -> (Network, TcpStream, TcpStream) {
        let network = Network::new(1).unwrap();
        network.set_process(1, std::process::id());
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = free_port();
        network
            .open_door(0, door, target.local_addr().unwrap().port())
            .unwrap();
        let near = TcpStream::connect(("127.0.0.1", door)).unwrap();
        let (far, _) = target.accept().unwrap();
        (network, near, far)
    }

    fn arrives(from: &mut TcpStream, to: &mut TcpStream, wait: Duration) -> bool {
        from.write_all(b"x").unwrap();
        has_byte(to, wait)
    }

    fn has_byte(to: &mut TcpStream, wait: Duration) -> bool {
        to.set_read_timeout(Some(wait)).unwrap();
        to.read(&mut [0]).is_ok_and(|len| len == 1)
    }

    #[test]
    fn each_direction_is_cut_alone_and_what_waited_arrives() {
        let (network, mut near, mut far) = connect();
        assert!(arrives(&mut near, &mut far, PATIENCE) && arrives(&mut far, &mut near, PATIENCE));
        network.set(1, 0, Rules::CUT);
        assert!(!arrives(&mut near, &mut far, GLANCE));
        assert!(arrives(&mut far, &mut near, PATIENCE));
        network.heal();
        assert!(has_byte(&mut far, PATIENCE));
    }

    #[test]
    fn a_connection_that_lost_bytes_ends() {
        let (network, mut near, mut far) = connect();
        network.set(1, 0, Rules::SWALLOW);
        assert!(!arrives(&mut near, &mut far, GLANCE));
        assert!(arrives(&mut far, &mut near, PATIENCE));
        network.heal();
        // It may have ended already.
        let _ = near.write_all(b"y");
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let len = far.read(&mut [0; 8]).unwrap_or(0);
        assert_eq!(len, 0, "a byte arrives although the one before it is lost");
    }

    #[test]
    fn one_bit_changes_at_a_time_and_none_when_all_is_in_order() {
        let (network, mut near, mut far) = connect();
        network.set(1, 0, Rules::flipping(1_000));
        near.write_all(&[0; 8]).unwrap();
        let mut got = [0; 8];
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        far.read_exact(&mut got).unwrap();
        let bits: u32 = got.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(bits, 1, "{got:?}");
        network.heal();
        near.write_all(&[0; 8]).unwrap();
        far.read_exact(&mut got).unwrap();
        assert_eq!(got, [0; 8]);
    }

    #[test]
    fn connections_are_dropped_delayed_and_slowed() {
        let (network, mut near, mut far) = connect();
        network.set(1, 0, Rules::slow(300, 0));
        assert!(!arrives(&mut near, &mut far, GLANCE));
        assert!(has_byte(&mut far, PATIENCE));
        network.heal();
        network.reset(0, 1);
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(near.read(&mut [0; 8]).unwrap_or(0), 0);
    }

    #[test]
    fn nobody_connects_over_a_cut_wire_or_without_being_known() {
        let (network, _near, _far) = connect();
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        target.set_nonblocking(true).unwrap();
        let (door, port) = (free_port(), target.local_addr().unwrap().port());
        network.set(0, 2, Rules::CUT);
        network.set(1, 2, Rules::CUT);
        network.open_door(2, door, port).unwrap();
        let _waiting = TcpStream::connect(("127.0.0.1", door)).unwrap();
        thread::sleep(GLANCE);
        assert!(target.accept().is_err(), "the wire is cut");
        network.heal();
        target.set_nonblocking(false).unwrap();
        target.accept().unwrap();
        // As if this process had ended: nobody knows whose connection it is.
        network.set_process(1, u32::MAX);
        let mut unknown = TcpStream::connect(("127.0.0.1", door)).unwrap();
        unknown.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(unknown.read(&mut [0; 8]).unwrap_or(0), 0);
    }
}
