//! Generates `crates/proto/src/generated` from `crates/proto/proto`, or stands in for `protoc`.
//!
//! `protogen generate` writes the files, `protogen check` fails when they differ from what would be written.
//! Any other arguments are taken as `protoc`'s (`-o FILE`, `-I DIR`, files), for build scripts of test clients
//! that insist on such a program.
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = env::args().skip(1).collect();
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/proto");
    match args.first().map(String::as_str) {
        Some("generate") => generate(&proto, &proto.join("src/generated")),
        Some("check") => check(&proto),
        Some("--version") => {
            println!("libprotoc 25.1");
            Ok(())
        }
        _ => protoc(&args),
    }
}

/// Every `.proto` file below `dir`, in byte order of its path.
fn proto_files(dir: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Messages that hold passwords, their hashes, or tokens: how they are shown is written by hand, in `src/secrets.rs`.
const SECRETS: [&str; 6] = [
    ".authpb.User",
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".etcdserverpb.InternalAuthenticateRequest",
];

fn generate(proto: &Path, out: &Path) -> Outcome {
    let root = proto.join("proto");
    let descriptors = protox::compile(proto_files(&root)?, [&root])?;
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    fs::create_dir_all(out)?;
    let mut without_source = descriptors.clone();
    for file in &mut without_source.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), without_source.encode_to_vec())?;
    prost_build::Config::new()
        .bytes(["."])
        .skip_debug(SECRETS)
        .btree_map([".grpc"])
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}

fn check(proto: &Path) -> Outcome {
    let fresh = env::temp_dir().join(format!("protogen-{}", std::process::id()));
    generate(proto, &fresh)?;
    let kept = proto.join("src/generated");
    let mut stale = Vec::new();
    for entry in fs::read_dir(&fresh)? {
        let name = entry?.file_name();
        if fs::read(fresh.join(&name))? != fs::read(kept.join(&name)).unwrap_or_default() {
            stale.push(name.to_string_lossy().into_owned());
        }
    }
    fs::remove_dir_all(&fresh)?;
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!(
        "stale generated files: {}; run `protogen generate`",
        stale.join(", ")
    )
    .into())
}

fn protoc(args: &[String]) -> Outcome {
    let (mut out, mut includes, mut files) = (None, Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-o" => out = rest.next().cloned(),
            "-I" => includes.extend(rest.next().cloned()),
            _ if arg.starts_with("-I") => includes.push(arg[2..].to_owned()),
            _ if arg.starts_with('-') => {}
            _ => files.push(arg.clone()),
        }
    }
    let out = out.ok_or("missing -o FILE")?;
    let descriptors = protox::compile(files, includes)?;
    fs::write(out, descriptors.encode_to_vec())?;
    Ok(())
}
