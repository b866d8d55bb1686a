//! Wire and record types of etcd v3: clients' messages, raft's, and what is stored in the backend's tables.
//!
//! The `.proto` files in `proto/` are the source; `src/generated` is what `tools/protogen` makes of them, checked in so
//! that building needs no Protobuf compiler. There is no logic here: bytes fields are [`bytes::Bytes`], enums are `i32`
//! with a Rust enum beside them, and unknown fields are dropped on decode. Packages keep their Protobuf names.
//!
//! ```
//! use prost::Message;
//! use quorate_proto::etcdserverpb::PutRequest;
//!
//! let put = PutRequest { key: "foo".into(), value: "bar".into(), ..Default::default() };
//! let bytes = put.encode_to_vec();
//! assert_eq!(PutRequest::decode(&bytes[..]).unwrap(), put);
//! ```
#![allow(
    missing_docs,
    reason = "generated from the .proto files, where only what is not plain is commented"
)]
#![allow(clippy::all, reason = "generated code")]
#![allow(
    unused_qualifications,
    reason = "generated code names prost by its full path"
)]

mod id;
mod secrets;

pub use id::{ClusterId, LeaseId, MemberId};

pub mod authpb {
    include!("generated/authpb.rs");
}
pub mod etcdserverpb {
    include!("generated/etcdserverpb.rs");
}
pub mod leasepb {
    include!("generated/leasepb.rs");
}
pub mod membershippb {
    include!("generated/membershippb.rs");
}
pub mod mvccpb {
    include!("generated/mvccpb.rs");
}
pub mod raftpb {
    include!("generated/raftpb.rs");
}
pub mod snappb {
    include!("generated/snappb.rs");
}
pub mod v3electionpb {
    include!("generated/v3electionpb.rs");
}
pub mod v3lockpb {
    include!("generated/v3lockpb.rs");
}
pub mod walpb {
    include!("generated/walpb.rs");
}
pub mod grpc {
    pub mod health {
        pub mod v1 {
            include!("generated/grpc.health.v1.rs");
        }
    }
    pub mod reflection {
        pub mod v1 {
            include!("generated/grpc.reflection.v1.rs");
        }
        pub mod v1alpha {
            include!("generated/grpc.reflection.v1alpha.rs");
        }
    }
}

/// The serialized `FileDescriptorSet` of every `.proto` file, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
