//! The API without generated types: methods by name, messages as JSON.

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor,
    SerializeOptions,
};
use serde_json::Value;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::failure::{Failure, Outcome};

/// Every service and message of the API.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pool: DescriptorPool,
}

impl Wire {
    pub(crate) fn new() -> Wire {
        let pool = DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET);
        Wire {
            pool: pool.expect("the project's own descriptors are whole"),
        }
    }

    /// The method of a short name such as `KV/Put`.
    pub(crate) fn method(&self, rpc: &str) -> Outcome<MethodDescriptor> {
        let unknown = || Failure::new(format!("unknown method {rpc}"));
        let (service, method) = rpc.split_once('/').ok_or_else(unknown)?;
        let service = self
            .pool
            .services()
            .find(|s| s.name() == service)
            .ok_or_else(unknown)?;
        service
            .methods()
            .find(|m| m.name() == method)
            .ok_or_else(unknown)
    }
}

/// The HTTP path of a method.
pub(crate) fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Reads a message from proto3 JSON.
pub(crate) fn from_json(descriptor: MessageDescriptor, json: &Value) -> Outcome<DynamicMessage> {
    let options = DeserializeOptions::new();
    Ok(DynamicMessage::deserialize_with_options(
        descriptor, json, &options,
    )?)
}

/// Writes a message as proto3 JSON with the names of the `.proto` files.
pub(crate) fn to_json(message: &DynamicMessage) -> Outcome<Value> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    Ok(message.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// A codec for messages known only by descriptor.
#[derive(Debug, Clone)]
pub(crate) struct DynamicCodec {
    pub(crate) answer: MessageDescriptor,
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder(self.answer.clone())
    }
}

/// See [`DynamicCodec`].
#[derive(Debug)]
pub(crate) struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buf)
            .map_err(|e| Status::internal(e.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// See [`DynamicCodec`].
#[derive(Debug)]
pub(crate) struct DynamicDecoder(MessageDescriptor);

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), buf);
        message
            .map(Some)
            .map_err(|e| Status::internal(e.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
