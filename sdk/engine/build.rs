//! Names the CUDA libraries that the engine needs in its dynamic section, so that the dynamic linker says which one
//! is missing. What is linked against may be empty stand-ins with the right names, which the linker would leave out.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() && linux {
        let libraries = "-lcudart,-lnvrtc,-lcublasLt,-lcublas,-lcurand,-lcuda";
        println!(
            "cargo::rustc-cdylib-link-arg=-Wl,--push-state,--no-as-needed,{libraries},--pop-state"
        );
    }
}
