//! Gives the shared library its name for the dynamic linker.
//!
//! Before 1.0 the number is 0; it changes with `ET_ABI_MAJOR`, so a program keeps the library that it was linked
//! against.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    match os.as_str() {
        "macos" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libeasytransfer.0.dylib")
        }
        "windows" => {}
        _ => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libeasytransfer.so.0"),
    }
}
