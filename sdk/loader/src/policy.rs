//! Which code may run: hashes of library files.

use crate::error::{Facts, LoadError};
use crate::manifest::PluginManifest;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Which plugins may be loaded. It decides which code runs; it does not restrict what that code does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any library that a manifest names; hashes are not looked at.
    Any,
    /// Where the manifest states a SHA-256 for this platform, the library's bytes must have it.
    #[default]
    HashPinned,
    /// The manifest must state a SHA-256 for this platform, and the library's bytes must have it.
    HashRequired,
}

impl Policy {
    /// Checks the bytes of a library. Errors: `Policy`.
    pub(crate) fn check(
        self,
        manifest: &PluginManifest,
        platform: &str,
        library: &Path,
        bytes: &[u8],
    ) -> Result<(), LoadError> {
        if self == Policy::Any {
            return Ok(());
        }
        let Some(wanted) = manifest.sha256.get(platform) else {
            if self == Policy::HashPinned {
                return Ok(());
            }
            return Err(LoadError::Policy(Facts::boxed(
                &manifest.id,
                &manifest.path,
                "the policy refuses a library without a stated hash",
                format!("`{platform}` under [sha256] (policy HashRequired)"),
                "no entry",
                format!(
                    "add {platform} = {:?} under [sha256] if you trust this file, or choose the policy HashPinned",
                    sha256_hex(bytes)
                ),
            )));
        };
        let found = sha256_hex(bytes);
        if *wanted == found {
            return Ok(());
        }
        Err(LoadError::Policy(Facts::boxed(
            &manifest.id,
            library,
            "the library is not the file that the manifest describes",
            format!("sha256 {wanted}"),
            format!("sha256 {found}"),
            "install the plugin again from its publisher; change the hash in the manifest only if you built this file",
        )))
    }
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
