//! Server reflection, versions v1 and v1alpha: what services there are, and their descriptors.
//!
//! Differs from etcd: it does not offer reflection.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::FILE_DESCRIPTOR_SET;
use quorate_proto::grpc::reflection::{v1, v1alpha};

use super::context::decode;
use crate::message::Message;
use crate::method::Method;
use crate::seam::{Inbound, Outbound};
use crate::status::{Code, Status};

/// The parts of `google/protobuf/descriptor.proto` that are looked at. Files are kept as bytes to be given out unchanged.
#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<MessageType>,
    #[prost(message, repeated, tag = "5")]
    enum_type: Vec<Named>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<ServiceType>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MessageType {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    field: Vec<Named>,
    #[prost(message, repeated, tag = "3")]
    nested_type: Vec<MessageType>,
    #[prost(message, repeated, tag = "4")]
    enum_type: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceType {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// All files by name, and which file declares what.
#[derive(Default)]
struct Index {
    files: BTreeMap<String, (Bytes, Vec<String>)>,
    symbols: BTreeMap<String, String>,
}

impl Index {
    /// Returns the index of this program's own descriptors.
    fn get() -> &'static Index {
        static INDEX: OnceLock<Index> = OnceLock::new();
        INDEX.get_or_init(|| Index::build(FILE_DESCRIPTOR_SET))
    }

    fn build(set: &[u8]) -> Index {
        let mut index = Index::default();
        // The set is part of the program, and a test decodes it.
        let set = FileSet::decode(set).expect("the program's own descriptors decode");
        for bytes in set.file {
            let file = File::decode(bytes.clone()).expect("the program's own descriptors decode");
            index.add_symbols(&file);
            index.files.insert(file.name, (bytes, file.dependency));
        }
        index
    }

    fn add_symbols(&mut self, file: &File) {
        let mut symbols = Vec::new();
        let scope = if file.package.is_empty() {
            String::new()
        } else {
            format!("{}.", file.package)
        };
        for message in &file.message_type {
            message.list(&scope, &mut symbols);
        }
        symbols.extend(file.enum_type.iter().map(|e| format!("{scope}{}", e.name)));
        for service in &file.service {
            symbols.push(format!("{scope}{}", service.name));
            symbols.extend(
                service
                    .method
                    .iter()
                    .map(|m| format!("{scope}{}.{}", service.name, m.name)),
            );
        }
        self.symbols.extend(
            symbols
                .into_iter()
                .map(|symbol| (symbol, file.name.clone())),
        );
    }

    /// Returns a file and all it depends on, the file first.
    fn with_dependencies(&self, name: &str) -> Option<Vec<Bytes>> {
        let mut order = vec![name];
        let mut seen = BTreeSet::from([name]);
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(name) = order.get(at) {
            at += 1;
            // A dependency that the set does not hold is for the asker to know; a file that is asked for must be there.
            let Some((bytes, dependencies)) = self.files.get(*name) else {
                continue;
            };
            out.push(bytes.clone());
            order.extend(
                dependencies
                    .iter()
                    .map(String::as_str)
                    .filter(|d| seen.insert(d)),
            );
        }
        self.files.contains_key(name).then_some(out)
    }
}

impl MessageType {
    fn list(&self, scope: &str, symbols: &mut Vec<String>) {
        let name = format!("{scope}{}", self.name);
        let inner = format!("{name}.");
        symbols.extend(
            self.field
                .iter()
                .chain(&self.enum_type)
                .map(|n| format!("{inner}{}", n.name)),
        );
        for nested in &self.nested_type {
            nested.list(&inner, symbols);
        }
        symbols.push(name);
    }
}

/// What may be asked; the same in both versions.
#[derive(Clone, Debug, PartialEq)]
enum Question {
    File(String),
    Symbol(String),
    Extension,
    ExtensionNumbers(String),
    Services,
    Nothing,
}

/// What may be answered; the same in both versions.
#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Files(Vec<Bytes>),
    ExtensionNumbers(String),
    Services(Vec<&'static str>),
    Error(Status),
}

fn reply(question: Question) -> Reply {
    let index = Index::get();
    let not_found = |what: &str, name: &str| {
        Reply::Error(Status::new(
            Code::NotFound,
            format!("{what} not found: {name}"),
        ))
    };
    match question {
        Question::File(name) => index
            .with_dependencies(&name)
            .map_or_else(|| not_found("file", &name), Reply::Files),
        Question::Symbol(name) => {
            let file = index
                .symbols
                .get(&name)
                .and_then(|file| index.with_dependencies(file));
            file.map_or_else(|| not_found("symbol", &name), Reply::Files)
        }
        Question::Extension => not_found("extension", ""),
        Question::ExtensionNumbers(name) if index.symbols.contains_key(&name) => {
            Reply::ExtensionNumbers(name)
        }
        Question::ExtensionNumbers(name) => not_found("type", &name),
        Question::Services => {
            let services: BTreeSet<&str> = Method::ALL.iter().map(|m| m.service()).collect();
            Reply::Services(services.into_iter().collect())
        }
        Question::Nothing => Reply::Error(Status::fixed(
            Code::InvalidArgument,
            "invalid MessageRequest: <nil>",
        )),
    }
}

macro_rules! serve {
    ($serve:ident, $version:ident) => {
        /// Answers questions until the caller has no more.
        pub(super) async fn $serve(mut inbound: Inbound, outbound: Outbound) -> Result<(), Status> {
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            while let Some(body) = inbound.next().await? {
                let request: $version::ServerReflectionRequest = decode(body)?;
                let question = match request.message_request.clone() {
                    Some(MessageRequest::FileByFilename(name)) => Question::File(name),
                    Some(MessageRequest::FileContainingSymbol(name)) => Question::Symbol(name),
                    Some(MessageRequest::FileContainingExtension(_)) => Question::Extension,
                    Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                        Question::ExtensionNumbers(name)
                    }
                    Some(MessageRequest::ListServices(_)) => Question::Services,
                    None => Question::Nothing,
                };
                let answer = match reply(question) {
                    Reply::Files(file_descriptor_proto) => {
                        MessageResponse::FileDescriptorResponse($version::FileDescriptorResponse {
                            file_descriptor_proto,
                        })
                    }
                    Reply::ExtensionNumbers(base_type_name) => {
                        MessageResponse::AllExtensionNumbersResponse(
                            $version::ExtensionNumberResponse {
                                base_type_name,
                                extension_number: Vec::new(),
                            },
                        )
                    }
                    Reply::Services(names) => {
                        let service = names.iter().map(|n| $version::ServiceResponse {
                            name: (*n).to_owned(),
                        });
                        MessageResponse::ListServicesResponse($version::ListServiceResponse {
                            service: service.collect(),
                        })
                    }
                    Reply::Error(status) => {
                        MessageResponse::ErrorResponse($version::ErrorResponse {
                            error_code: i32::from(status.code().number()),
                            error_message: status.message().to_owned(),
                        })
                    }
                };
                let response = $version::ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(answer),
                };
                outbound.send(Message::encode(&response)).await?;
            }
            Ok(())
        }
    };
}

serve!(serve_v1, v1);
serve!(serve_v1alpha, v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_described() {
        let index = Index::get();
        for method in Method::ALL {
            for symbol in [
                method.service().to_owned(),
                format!("{}.{}", method.service(), method.name()),
            ] {
                assert!(
                    matches!(reply(Question::Symbol(symbol.clone())), Reply::Files(_)),
                    "{symbol}"
                );
            }
        }
        for symbol in [
            "etcdserverpb.RangeRequest",
            "etcdserverpb.RangeRequest.SortOrder",
            "mvccpb.KeyValue.key",
        ] {
            assert!(index.symbols.contains_key(symbol), "{symbol}");
        }
    }

    #[test]
    fn file_comes_first_and_with_all_it_needs() {
        let index = Index::get();
        let name = &index.symbols["etcdserverpb.KV"];
        let files = index.with_dependencies(name).unwrap();
        let decoded: Vec<File> = files
            .iter()
            .map(|f| File::decode(f.clone()).unwrap())
            .collect();
        assert_eq!(&decoded[0].name, name);
        let names: BTreeSet<_> = decoded.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names.len(), decoded.len(), "no file twice");
        for dependency in decoded
            .iter()
            .flat_map(|f| &f.dependency)
            .filter(|d| index.files.contains_key(*d))
        {
            assert!(names.contains(dependency.as_str()), "{dependency}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for question in [
            Question::File("x.proto".into()),
            Question::Symbol("a.B".into()),
            Question::Extension,
        ] {
            assert!(matches!(reply(question), Reply::Error(s) if s.code() == Code::NotFound));
        }
        assert!(
            matches!(reply(Question::Services), Reply::Services(names) if names.contains(&"etcdserverpb.KV"))
        );
    }
}
