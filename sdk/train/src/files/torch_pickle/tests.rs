use super::*;

/// A zip archive of stored entries.
pub(crate) fn archive(entries: &[(&str, &[u8])], method: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in entries {
        let local = bytes.len() as u32;
        let mut common = vec![0, 0, 0, 0];
        common.extend_from_slice(&method.to_le_bytes());
        common.extend_from_slice(&[0; 8]);
        common.extend_from_slice(&(data.len() as u32).to_le_bytes());
        common.extend_from_slice(&(data.len() as u32).to_le_bytes());
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(b"PK\x03\x04");
        bytes.extend_from_slice(&common);
        // A padding of four bytes in an extra field, as torch aligns its data.
        bytes.extend_from_slice(&4u16.to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"FB\0\0");
        bytes.extend_from_slice(data);
        directory.extend_from_slice(b"PK\x01\x02\0\0");
        // Version needed, flags, method, time, date, checksum, sizes and name length are the same fields.
        directory.extend_from_slice(&common[..2]);
        directory.extend_from_slice(&common[2..]);
        directory.extend_from_slice(&[0; 12]);
        directory.extend_from_slice(&local.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let start = bytes.len() as u32;
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&start.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A tensor over a float storage, as torch pickles it.
fn tensor(out: &mut Vec<u8>, key: &str, elements: u8, offset: u8, shape: &[u8], strides: &[u8]) {
    out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(out, "storage");
    out.extend_from_slice(b"ctorch\nFloatStorage\n");
    text(out, key);
    text(out, "cpu");
    out.extend_from_slice(&[b'K', elements, b't', b'Q', b'K', offset]);
    for sizes in [shape, strides] {
        out.push(b'(');
        sizes.iter().for_each(|&size| out.extend_from_slice(&[b'K', size]));
        out.push(b't');
    }
    out.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
}

pub(crate) fn pickle(offset: u8) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(".to_vec();
    text(&mut out, "w");
    tensor(&mut out, "0", 6, 0, &[2, 3], &[3, 1]);
    text(&mut out, "w.t");
    tensor(&mut out, "0", 6, 0, &[3, 2], &[1, 3]);
    text(&mut out, "tail");
    tensor(&mut out, "0", 6, offset, &[2], &[1]);
    text(&mut out, "epoch");
    out.extend_from_slice(b"K\x07u}");
    text(&mut out, "_metadata");
    out.extend_from_slice(b"Nsb.");
    out
}

pub(crate) fn sample() -> Vec<u8> {
    sample_of(&pickle(4))
}

pub(crate) fn sample_of(pickle: &[u8]) -> Vec<u8> {
    let floats: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    archive(&[("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", &floats)], 0)
}

/// The dictionary in the format before PyTorch 1.6.
pub(crate) fn legacy_sample(little_endian: bool) -> Vec<u8> {
    let mut bytes = legacy::MAGIC.to_vec();
    bytes.extend_from_slice(b"\x80\x02M\xe9\x03.\x80\x02}");
    text(&mut bytes, "little_endian");
    bytes.extend_from_slice(if little_endian { b"\x88s." } else { b"\x89s." });
    bytes.extend_from_slice(&pickle(4));
    bytes.extend_from_slice(b"\x80\x02]");
    text(&mut bytes, "0");
    bytes.extend_from_slice(b"a.");
    bytes.extend_from_slice(&6i64.to_le_bytes());
    bytes.extend((0..6).flat_map(|i| (i as f32).to_le_bytes()));
    bytes
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn message(bytes: &[u8]) -> String {
    TorchFile::parse(Path::new("p.bin"), bytes).unwrap_err().to_string()
}

#[test]
fn tensors_and_views_are_read() {
    let bytes = sample();
    let file = TorchFile::parse(Path::new("p.bin"), &bytes).unwrap();
    let names: Vec<&str> = file.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["w", "w.t", "tail"]);
    let read = |index: usize| file.bytes(&file.tensors[index]).unwrap();
    assert!(matches!(read(0), Cow::Borrowed(_)));
    assert_eq!(floats(&read(0)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(floats(&read(1)), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(floats(&read(2)), [4.0, 5.0]);
    assert_eq!(file.tensors[1].shape, [3, 2]);
}

#[test]
fn file_before_pytorch_1_6_is_read_and_its_damage_named() {
    let bytes = legacy_sample(true);
    let file = TorchFile::parse(Path::new("p.bin"), &bytes).unwrap();
    assert_eq!(floats(&file.bytes(&file.tensors[1]).unwrap()), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let data = bytes.len() - 32;
    let mut other_count = bytes.clone();
    other_count[data] = 5;
    let mut other_version = bytes.clone();
    other_version[legacy::MAGIC.len() + 3] = 1;
    for (bytes, needle) in [
        (&bytes[..bytes.len() - 1], "the end of the file"),
        (&bytes[..data + 3], "the end of the file"),
        (&bytes[..data - 2], "before PyTorch 1.6"),
        (&[&bytes[..], b"x"].concat(), "1 bytes behind it"),
        (&other_count, "expected 6 elements in storage `0`, found 5"),
        (&other_version, "version 1001"),
        (&legacy_sample(false), "byte order `big`"),
    ] {
        let message = message(bytes);
        assert!(message.contains(needle), "{message} lacks {needle}");
    }
}

#[test]
fn pickle_that_asks_for_endless_objects_is_refused() {
    let mut program = b"\x80\x02".to_vec();
    program.resize(pickle::MOST_INSTRUCTIONS + 2, b'}');
    program.push(b'.');
    let message = message(&sample_of(&program));
    assert!(message.contains("more than 2000000 instructions"), "{message}");
}

#[test]
fn state_dict_inside_a_checkpoint_is_found() {
    let mut outer = b"\x80\x02}(".to_vec();
    text(&mut outer, "step");
    outer.extend_from_slice(b"K\x01");
    text(&mut outer, "state_dict");
    // The inner program without its protocol and its stop.
    let inner = pickle(4);
    outer.extend_from_slice(&inner[2..inner.len() - 1]);
    outer.extend_from_slice(b"u.");
    let bytes = sample_of(&outer);
    assert_eq!(TorchFile::parse(Path::new("p"), &bytes).unwrap().tensors.len(), 3);
}

#[test]
fn programs_are_refused_by_name() {
    let program = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
    let message_text = message(&sample_of(program));
    assert!(message_text.contains("the global `os.system`"), "{message_text}");
    // STACK_GLOBAL, protocol 4.
    let program = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.";
    assert!(message(&sample_of(program)).contains("the global `builtins.eval`"));
    assert!(message(&sample_of(b"\x80\x02i.")).contains("the instruction 0x69"));
}

#[test]
fn damage_and_other_formats_are_named() {
    let bytes = sample();
    for (bytes, needle) in [
        (sample_of(&pickle(5)), "tensor `tail`: expected a view of 6 elements"),
        (archive(&[("m/data.pkl", &pickle(4))], 0), "expected an entry `data/0`"),
        (archive(&[("m/data.pkl", &pickle(4)), ("m/data/0", &[0; 20])], 0), "found 20 bytes"),
        (archive(&[("m/data.pkl", &pickle(4))], 8), "compressed"),
        (archive(&[("m/x", b"")], 0), "an entry `data.pkl`"),
        (archive(&[("m/data.pkl", b"\x80\x02}."), ("m/constants.pkl", b"")], 0), "TorchScript"),
        (archive(&[("m/data.pkl", b"\x80\x02}."), ("m/byteorder", b"big")], 0), "byte order `big`"),
        (sample_of(b"\x80\x02}."), "no tensor in it"),
        (sample_of(b"\x80\x02}"), "the end of the data"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), "before PyTorch 1.6"),
        (bytes[..bytes.len() - 30].to_vec(), "no directory"),
        (Vec::new(), "something else"),
    ] {
        let message = message(&bytes);
        assert!(message.contains(needle), "{message} lacks {needle}");
    }
}
