//! What this binary says it is.

/// The etcd release whose behaviour is offered; tools read it as the server's version.
pub const ETCD_VERSION: &str = "3.7.1";

/// The version a cluster of members like this one agrees on.
pub const CLUSTER_VERSION: &str = "3.7.0";

/// The version of the storage schema told to clients.
pub const STORAGE_VERSION: &str = "3.7.0";

/// The release of this program.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The commit this was built from, when the build was told.
pub const GIT_SHA: &str = match option_env!("QUORATE_GIT_SHA") {
    Some(sha) => sha,
    None => "Not provided",
};

/// The first two numbers of [`ETCD_VERSION`].
pub const MAJOR_MINOR: (u32, u32) = (3, 7);

/// Reads the first two numbers of `X.Y.Z`; `None` for anything else.
pub fn major_minor(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.splitn(3, '.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    numbers.next()?;
    Some((major, minor))
}

/// Returns the operating system by its Go name.
pub fn os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// Returns the processor architecture by its Go name.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Returns the four lines that `--version` prints.
pub fn text() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\n\
         Git SHA: {GIT_SHA}\n\
         Go Version: none (quorate {RELEASE} is written in Rust)\n\
         Go OS/Arch: {}/{}\n",
        os(),
        arch()
    )
}
