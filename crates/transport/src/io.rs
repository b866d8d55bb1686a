//! Sockets, and how long a write on one may take.
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Sleep;

use crate::Error;
use crate::codec::Chunks;
use crate::url::PeerUrl;

/// Pieces that one gather write takes.
const SLICES_MAX: usize = 64;

/// Connects to a member. The one place where a link to another member begins; TLS belongs here.
///
/// # Cancel safety
///
/// Cancel safe: an unfinished connection is closed.
pub(crate) async fn connect(
    url: &PeerUrl,
    from: Option<IpAddr>,
    stall_max: Duration,
) -> Result<Patient, Error> {
    let socket = match from {
        None => TcpStream::connect(url.authority()).await?,
        Some(from) => connect_from(url.authority(), from).await?,
    };
    // A port that nobody listens on may be given to this very socket, which then meets itself and keeps the port taken.
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    }
    Ok(Patient::new(socket, stall_max)?)
}

/// Connects from one of this machine's addresses, to addresses of its kind.
async fn connect_from(authority: &str, from: IpAddr) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(
        io::ErrorKind::AddrNotAvailable,
        format!("{authority} has no address that {from} can dial"),
    );
    for address in tokio::net::lookup_host(authority).await? {
        if address.is_ipv4() != from.is_ipv4() {
            continue;
        }
        let socket = if from.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.bind((from, 0).into())?;
        match socket.connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// A connection that fails when the other side takes nothing for too long.
pub(crate) struct Patient {
    reading: OwnedReadHalf,
    door: Arc<Door>,
    patience: Patience,
}

impl Patient {
    /// # Errors
    ///
    /// If the socket's options cannot be set: it is closed already.
    pub(crate) fn new(socket: TcpStream, stall_max: Duration) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let (reading, writing) = socket.into_split();
        Ok(Self {
            reading,
            door: Arc::new(Door(Mutex::new(Writing {
                half: writing,
                is_quiet: false,
                rest: Chunks::default(),
            }))),
            patience: Patience::new(stall_max),
        })
    }

    /// Returns the way past the HTTP library.
    pub(crate) fn door(&self) -> Arc<Door> {
        Arc::clone(&self.door)
    }
}

/// How long a write may wait for the other side.
pub(crate) struct Patience {
    stall_max: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(crate) fn new(stall_max: Duration) -> Self {
        Self {
            stall_max,
            stalled: None,
        }
    }

    /// Passes on how a write went, or fails when writes have waited for too long.
    pub(crate) fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall_max = self.stall_max;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_max)));
        std::task::ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the other side takes no bytes",
        )))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reading).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.door.0.lock().half).poll_write(cx, buf);
        self.patience.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.door.0.lock().half).poll_write_vectored(cx, bufs);
        self.patience.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The HTTP library flushes when it has written all it had.
        self.door.0.lock().is_quiet = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.door.0.lock().half).poll_shutdown(cx)
    }
}

/// The sending side of a connection, for whoever has something to write on it: the HTTP library, and on a stream whose head
/// it has written also the thread that has a message, without waking another.
pub(crate) struct Door(Mutex<Writing>);

struct Writing {
    half: OwnedWriteHalf,
    /// Whether the HTTP library has written all it was given.
    is_quiet: bool,
    /// What found no room of what was written past the library. **Invariant:** while there is some, the library is quiet:
    /// it is given nothing, since that would land in the middle.
    rest: Chunks,
}

impl Door {
    /// Announces that the HTTP library gets something to write; `false` while it may not.
    pub(crate) fn disturb(&self) -> bool {
        let mut writing = self.0.lock();
        let is_free = !writing.rest.has_remaining();
        if is_free {
            writing.is_quiet = false;
        }
        is_free
    }

    /// Says whether something that was written past the library is not all written.
    pub(crate) fn has_rest(&self) -> bool {
        self.0.lock().rest.has_remaining()
    }

    /// Writes a piece of a chunked body now. `None` when the HTTP library is at it; otherwise it is on its way and counts so
    /// many bytes, and `false` says that [`Door::poll_rest`] has to see to the rest of it.
    pub(crate) fn write(&self, make: impl FnOnce() -> Chunks) -> Option<(usize, bool)> {
        let mut writing = self.0.lock();
        if !writing.is_quiet || writing.rest.has_remaining() {
            return None;
        }
        let piece = make();
        let count = piece.remaining();
        writing.rest = chunked(piece);
        // An error comes again, to those who can end the connection.
        let is_done = writing.try_rest().unwrap_or(false);
        Some((count, is_done))
    }

    /// Writes what found no room before; ready when nothing is left, or when nothing of it was taken for too long.
    pub(crate) fn poll_rest(
        &self,
        cx: &mut Context<'_>,
        patience: &mut Patience,
    ) -> Poll<io::Result<()>> {
        let mut writing = self.0.lock();
        let Writing { half, rest, .. } = &mut *writing;
        while rest.has_remaining() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = rest.chunks_vectored(&mut slices);
            let written = Pin::new(&mut *half).poll_write_vectored(cx, &slices[..count]);
            match std::task::ready!(patience.judge(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => rest.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Writing {
    /// Writes as much as the system takes; `true` when nothing is left.
    fn try_rest(&mut self) -> io::Result<bool> {
        let Self { half, rest, .. } = self;
        while rest.has_remaining() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = rest.chunks_vectored(&mut slices);
            let written = half.try_write_vectored(&slices[..count])?;
            rest.advance(written);
            if written == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Frames a piece of a body whose length is not known. Source: RFC 9112 section 7.1.
fn chunked(piece: Chunks) -> Chunks {
    let head = format!("{:X}\r\n", piece.remaining());
    let mut framed = Chunks::from(Bytes::from(head));
    framed.append(piece);
    framed.push(Bytes::from_static(b"\r\n"));
    framed
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn pair() -> (Patient, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).await;
        let there = listener.accept().await.unwrap().0;
        let patience = Duration::from_secs(60);
        (Patient::new(here.unwrap(), patience).unwrap(), there)
    }

    #[tokio::test]
    async fn a_connection_begins_where_it_is_told_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let from = [127, 0, 0, 9].into();
        let made = connect_from(&authority, from).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip(), from);
        drop(made);
        let of_other_kind = std::net::Ipv6Addr::LOCALHOST.into();
        let refused = connect_from(&authority, of_other_kind).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn a_piece_goes_past_the_library_only_while_that_is_quiet() {
        let (mut here, mut there) = pair().await;
        let door = here.door();
        let piece = || Chunks::from(Bytes::from_static(b"0123456789abcdef!"));
        assert_eq!(door.write(piece), None, "its head is not written yet");
        here.write_all(b"head ").await.unwrap();
        here.flush().await.unwrap();
        assert_eq!(door.write(piece), Some((17, true)));
        assert!(door.disturb());
        assert_eq!(door.write(piece), None);
        here.write_all(b"more ").await.unwrap();
        here.flush().await.unwrap();
        assert_eq!(door.write(piece), Some((17, true)));
        drop((here, door));
        let mut all = Vec::new();
        there.read_to_end(&mut all).await.unwrap();
        let framed = "11\r\n0123456789abcdef!\r\n";
        assert_eq!(all, format!("head {framed}more {framed}").as_bytes());
    }

    #[tokio::test]
    async fn what_finds_no_room_goes_before_anything_else() {
        let (mut here, mut there) = pair().await;
        let door = here.door();
        here.flush().await.unwrap();
        let large = Bytes::from(vec![b'x'; 64 << 20]);
        let piece = || Chunks::from(large.clone());
        assert_eq!(door.write(piece), Some((large.len(), false)));
        assert!(!door.disturb());
        assert_eq!(door.write(piece), None);
        let reading = async {
            let mut all = Vec::new();
            there.read_to_end(&mut all).await.unwrap();
            all.len()
        };
        let writing = async {
            let mut patience = Patience::new(Duration::from_secs(60));
            std::future::poll_fn(|cx| door.poll_rest(cx, &mut patience))
                .await
                .unwrap();
            assert!(door.disturb());
            here.write_all(b"end").await.unwrap();
            drop((here, door));
        };
        let (read, ()) = tokio::join!(reading, writing);
        assert_eq!(read, "4000000\r\n\r\n".len() + large.len() + "end".len());
    }
}
