//! Several plugins are linked into one test program, so none of them may export the entry symbol.
fn main() {
    println!("cargo:rustc-cfg=et_static");
    println!("cargo:rerun-if-changed=build.rs");
}
