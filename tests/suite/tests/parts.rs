//! Loops by hand in C and C++: what would go wrong silently is an error, and a model is saved and read back.

use std::fs;

use easytransfer_tests::hosts::{Scratch, build_program, command, run};
use easytransfer_tests::places;

#[test]
fn optimizers_gradients_and_saved_models_in_c_and_cpp() {
    let scratch = Scratch::new("parts");
    let config = places::root().join("tests/parity/tiny/bert/config.json");
    let config = fs::read_to_string(config).unwrap();
    for (name, source) in
        [("parts.c", include_str!("hosts/parts.c")), ("parts.cpp", include_str!("hosts/parts.cpp"))]
    {
        let (file, program) =
            (scratch.path().join(name), scratch.path().join(format!("{name}.out")));
        fs::write(&file, source).unwrap();
        build_program(&scratch, &file, &program);
        let saved = scratch.path().join(format!("{name}.saved"));
        let mut command = command(&program, &[]);
        command.args([config.as_str(), saved.to_str().unwrap()]);
        run(&mut command, b"").good(name);
        assert_eq!(fs::read_dir(&saved).unwrap().count(), 2, "config.json and model.safetensors");
    }
}
