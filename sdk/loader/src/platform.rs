//! Names of platforms in manifests, and what a shared library is called on each.

/// Every platform tuple that a manifest may name under `[library]` and `[sha256]`.
pub const KNOWN_PLATFORMS: [&str; 6] =
    ["linux_amd64", "linux_arm64", "macos_amd64", "macos_arm64", "windows_amd64", "windows_arm64"];

/// The tuple of the platform that this program was built for, for instance "linux_amd64". On a platform that
/// [`KNOWN_PLATFORMS`] lacks it is "unknown", which no manifest can name.
pub fn current_platform() -> &'static str {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux_amd64",
        ("linux", "aarch64") => "linux_arm64",
        ("macos", "x86_64") => "macos_amd64",
        ("macos", "aarch64") => "macos_arm64",
        ("windows", "x86_64") => "windows_amd64",
        ("windows", "aarch64") => "windows_arm64",
        _ => "unknown",
    }
}

/// File name of the shared library of a crate on a platform: "loss-basic" is `libloss_basic.so` on Linux,
/// `libloss_basic.dylib` on macOS and `loss_basic.dll` on Windows. `platform` is a tuple; one that is not known is
/// treated as Linux.
pub fn library_file_name(platform: &str, stem: &str) -> String {
    let stem = stem.replace('-', "_");
    if platform.starts_with("windows") {
        format!("{stem}.dll")
    } else if platform.starts_with("macos") {
        format!("lib{stem}.dylib")
    } else {
        format!("lib{stem}.so")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_follow_the_platform() {
        assert_eq!(library_file_name("linux_amd64", "loss-basic"), "libloss_basic.so");
        assert_eq!(library_file_name("macos_arm64", "zoo-bert"), "libzoo_bert.dylib");
        assert_eq!(library_file_name("windows_amd64", "zoo-bert"), "zoo_bert.dll");
    }
}
