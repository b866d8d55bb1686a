//! Bytes on the wire, right or wrong.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use quorate_integration_tests::Client;
use quorate_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A codec that sends and takes messages as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buf.remaining();
        Ok(Some(buf.copy_to_bytes(len)))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// A client's first bytes of HTTP/2: the preface and empty settings.
pub(crate) fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(0x4, 0, 0, &[]));
    bytes
}

/// One frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let mut bytes = len.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The header block of a call, without compression.
pub(crate) fn call_headers(path: &str) -> Vec<u8> {
    // :method POST and :scheme http from the static table.
    let mut block = vec![0x83, 0x86];
    let mut field = |name: &str, value: &str| {
        block.push(0);
        for text in [name, value] {
            assert!(
                text.len() < 127,
                "longer texts need more than one byte of length"
            );
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    };
    field(":path", path);
    field(":authority", "localhost");
    field("content-type", "application/grpc");
    field("te", "trailers");
    block
}

/// Connects without any protocol.
pub(crate) fn connect(endpoint: &str) -> TcpStream {
    let stream = TcpStream::connect(endpoint).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream
}

/// Sends bytes as far as the other side takes them, and reads for a moment.
pub(crate) fn send(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    // The server may close at the first wrong byte.
    let _ = stream.write_all(bytes);
    let mut answer = vec![0; 4_096];
    let len = stream.read(&mut answer).unwrap_or(0);
    answer.truncate(len);
    answer
}

/// The server still takes a write and shows it.
pub(crate) async fn assert_serves(endpoint: &str) {
    let client = Client::connect(endpoint).await.unwrap();
    let put = PutRequest {
        key: "alive".into(),
        value: "yes".into(),
        ..PutRequest::default()
    };
    let _: PutResponse = client.call("KV/Put", put).await.unwrap();
    let range = RangeRequest {
        key: "alive".into(),
        ..RangeRequest::default()
    };
    let answer: RangeResponse = client.call("KV/Range", range).await.unwrap();
    assert_eq!(answer.kvs[0].value, "yes");
}
