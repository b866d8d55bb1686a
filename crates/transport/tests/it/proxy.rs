//! A proxy that does to bytes what bad networks do.
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Every piece waits for as long.
    Slow(Duration),
    /// Bytes vanish; connections stay.
    Swallow,
    /// Pieces of at most this length pass, each with one bit of it changed.
    Spoil(usize),
    /// Nothing is read.
    Stuck,
}

/// Forwards connections to an address.
pub(crate) struct Proxy {
    pub(crate) url: String,
    weather: watch::Sender<Weather>,
    connections: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
    /// Refuses connections while true.
    closed: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) fn start(runtime: &Runtime, to: &str) -> Self {
        let _context = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let listener = TcpListener::from_std(listener).unwrap();
        let to = to.strip_prefix("http://").unwrap().to_owned();
        let weather = watch::Sender::new(Weather::Fair);
        let closed = watch::Sender::new(false);
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (sky, gate, all) = (
            weather.clone(),
            closed.subscribe(),
            Arc::clone(&connections),
        );
        runtime.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                if *gate.borrow() {
                    continue;
                }
                let forwarding = forward(socket, to.clone(), sky.subscribe());
                all.lock()
                    .unwrap()
                    .push(tokio::spawn(forwarding).abort_handle());
            }
        });
        Self {
            url,
            weather,
            connections,
            closed,
        }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Ends all connections and lets none through until told otherwise.
    pub(crate) fn close(&self, closed: bool) {
        self.closed.send_replace(closed);
        self.cut();
    }
}

async fn forward(socket: TcpStream, to: String, weather: watch::Receiver<Weather>) {
    let Ok(target) = TcpStream::connect(to).await else {
        return;
    };
    let (from_client, to_client) = socket.into_split();
    let (from_target, to_target) = target.into_split();
    tokio::join!(
        pass(from_client, to_target, weather.clone()),
        pass(from_target, to_client, weather)
    );
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) {
    let mut piece = vec![0; 16 << 10];
    loop {
        if weather
            .wait_for(|weather| *weather != Weather::Stuck)
            .await
            .is_err()
        {
            return;
        }
        let Ok(count) = from.read(&mut piece).await else {
            return;
        };
        if count == 0 {
            let _ = to.shutdown().await;
            return;
        }
        let weather = *weather.borrow();
        let written = match weather {
            Weather::Fair => to.write_all(&piece[..count]).await,
            Weather::Slow(time) => {
                tokio::time::sleep(time).await;
                to.write_all(&piece[..count]).await
            }
            Weather::Swallow | Weather::Stuck => Ok(()),
            Weather::Spoil(every) => {
                for part in piece[..count].chunks_mut(every) {
                    part[part.len() / 2] ^= 4;
                }
                to.write_all(&piece[..count]).await
            }
        };
        if written.is_err() {
            return;
        }
    }
}
