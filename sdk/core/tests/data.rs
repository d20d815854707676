//! Buffers, maps, rows, batches, streams, configuration, random numbers and the log through the C tables.

mod boundary;

use std::ptr;

use boundary::*;
use easytransfer_abi::*;
use easytransfer_core::handle::slice_from;

fn api() -> &'static et_host_data {
    table(c"et.data/1")
}

struct Row(*mut et_row);

impl Row {
    fn new() -> Self {
        // SAFETY: the slot is filled.
        Self(make(|out| unsafe { api().row_new.unwrap()(out) }))
    }
    fn tokens(&self, name: &str, values: &[i64]) -> *mut et_error {
        // SAFETY: a live row and readable values (so for the next two).
        unsafe { api().row_put_tokens.unwrap()(self.0, text(name), values.as_ptr(), values.len()) }
    }
    fn i64(&self, name: &str, values: &[i64]) -> *mut et_error {
        // SAFETY: live handles.
        unsafe { api().row_put_i64.unwrap()(self.0, text(name), values.as_ptr(), values.len()) }
    }
    fn f32(&self, name: &str, values: &[f32]) -> *mut et_error {
        // SAFETY: live handles.
        unsafe { api().row_put_f32.unwrap()(self.0, text(name), values.as_ptr(), values.len()) }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        // SAFETY: an owned row.
        unsafe { api().row_release.unwrap()(self.0) }
    }
}

fn collate(rows: &[&Row], out: *mut *mut et_map) -> *mut et_error {
    let rows: Vec<*const et_row> = rows.iter().map(|row| row.0.cast_const()).collect();
    // SAFETY: live rows.
    unsafe { api().batch_from_rows.unwrap()(rows.as_ptr(), rows.len(), out) }
}

fn names(map: *const et_map) -> Vec<String> {
    // SAFETY: a live map.
    unsafe {
        let len = api().map_len.unwrap()(map);
        assert_eq!(str_of(api().map_name.unwrap()(map, len)), "");
        (0..len).map(|i| str_of(api().map_name.unwrap()(map, i))).collect()
    }
}

fn get(map: *const et_map, name: &str) -> *mut et_tensor {
    // SAFETY: a live map.
    make(|out| unsafe { api().map_get.unwrap()(map, text(name), out) })
}

#[test]
fn batches_have_no_padding() {
    let _guard = no_leaks();
    let (a, b) = (Row::new(), Row::new());
    ok(a.tokens("ids", &[5, 6, 7]));
    ok(a.tokens("segments", &[0, 0, 1]));
    ok(a.tokens("teacher/ids", &[9]));
    ok(a.i64("labels", &[2]));
    ok(a.f32("scores", &[0.5, -1.0]));
    // Rows may name their fields in another order.
    ok(b.f32("scores", &[1.5, 2.0]));
    ok(b.i64("labels", &[0]));
    ok(b.tokens("teacher/ids", &[8, 7]));
    ok(b.tokens("ids", &[]));
    ok(b.tokens("segments", &[]));
    // The sum over the name spaces. SAFETY: live rows.
    unsafe {
        assert_eq!(api().row_tokens_len.unwrap()(a.0), 3 + 1);
        assert_eq!(api().row_tokens_len.unwrap()(b.0), 2);
    }
    let batch = make(|out| collate(&[&a, &b], out));
    assert_eq!(
        names(batch),
        [
            "ids",
            "segments",
            "teacher/ids",
            "labels",
            "scores",
            "positions",
            "starts",
            "teacher/positions",
            "teacher/starts"
        ]
    );
    assert_eq!(take_i64(get(batch, "ids")), (vec![5, 6, 7], vec![3]));
    assert_eq!(take_i64(get(batch, "starts")), (vec![0, 3, 3], vec![3]));
    assert_eq!(take_i64(get(batch, "positions")), (vec![0, 1, 2], vec![3]));
    assert_eq!(take_i64(get(batch, "teacher/starts")), (vec![0, 1, 3], vec![3]));
    assert_eq!(take_i64(get(batch, "teacher/positions")), (vec![0, 0, 1], vec![3]));
    assert_eq!(take_i64(get(batch, "labels")), (vec![2, 0], vec![2]));
    assert_eq!(take_f32(get(batch, "scores")), (vec![0.5, -1.0, 1.5, 2.0], vec![2, 2]));
    // SAFETY: an owned map.
    unsafe { api().map_release.unwrap()(batch) };
}

#[test]
fn fields_that_exist_are_not_replaced() {
    let _guard = no_leaks();
    let row = Row::new();
    ok(row.tokens("ids", &[5, 6]));
    ok(row.tokens("positions", &[2, 3]));
    let batch = make(|out| collate(&[&row], out));
    assert_eq!(take_i64(get(batch, "positions")).0, [2, 3]);
    assert_eq!(names(batch), ["ids", "positions", "starts"]);
    // SAFETY: an owned map.
    unsafe { api().map_release.unwrap()(batch) };
}

#[test]
fn a_row_of_a_list_that_a_borrower_released_is_refused_and_given_to_nobody() {
    let _guard = no_leaks();
    // SAFETY: live handles, but for the row that is released though it is the list's.
    unsafe {
        let list = make(|out| api().rows_new.unwrap()(out));
        let add = || make(|out| api().rows_add.unwrap()(list, out));
        let row = add();
        api().row_release.unwrap()(row);
        let (code, message) = err(api().row_put_i64.unwrap()(row, text("labels"), &1, 1));
        assert_eq!(code, ET_ERR_BAD_HANDLE);
        assert!(message.contains("one that was released"), "{message}");
        // Neither a row of the list nor one of its own lies where the released one did.
        let other = add();
        let own = Row::new();
        assert!(row != other && row != own.0 && own.0 != other);
        let mut out = ptr::null_mut();
        let (code, message) = err(api().rows_get.unwrap()(list, 0, &mut out));
        assert_eq!(code, ET_ERR_BAD_HANDLE);
        assert!(message.contains("row 0 of the list") && out.is_null(), "{message}");
        let kept = make(|out| api().rows_get.unwrap()(list, 1, out));
        assert_eq!(kept, other);
        api().row_release.unwrap()(kept);
        assert_eq!(api().rows_len.unwrap()(list), 2);
        api().rows_release.unwrap()(list);
    }
}

#[test]
fn rows_that_do_not_fit_are_refused_by_name() {
    let _guard = no_leaks();
    let a = Row::new();
    ok(a.tokens("x/ids", &[1, 2]));
    let (code, message) = err(a.tokens("x/segments", &[1]));
    assert_eq!(code, ET_ERR_SHAPE);
    assert!(message.contains("x/segments") && message.contains("x/ids"), "{message}");
    ok(a.tokens("ids", &[1]));
    assert_eq!(err(a.i64("ids", &[1])).0, ET_ERR_ALREADY_EXISTS);
    assert_eq!(err(a.i64("", &[1])).0, ET_ERR_INVALID_ARGUMENT);
    ok(a.i64("label", &[1, 2]));

    let mut out = ptr::null_mut();
    let refuse = |row: &Row, expected: &[&str]| {
        let mut out = ptr::null_mut();
        let (code, message) = err(collate(&[&a, &a, row], &mut out));
        assert_eq!(code, ET_ERR_SHAPE);
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    };
    let b = Row::new();
    ok(b.tokens("x/ids", &[1]));
    ok(b.tokens("ids", &[1]));
    refuse(&b, &["row 2", "\"label\""]);
    ok(b.i64("label", &[1]));
    refuse(&b, &["row 2", "\"label\"", "has 1", "has 2"]);
    let c = Row::new();
    ok(c.tokens("x/ids", &[1]));
    ok(c.i64("ids", &[1]));
    ok(c.i64("label", &[1, 2]));
    refuse(&c, &["\"ids\"", "row 2", "integer"]);
    let d = Row::new();
    ok(d.tokens("x/ids", &[1]));
    ok(d.tokens("ids", &[1]));
    ok(d.i64("label", &[1, 2]));
    ok(d.f32("more", &[1.0]));
    refuse(&d, &["\"more\"", "row 2"]);
    assert_eq!(err(collate(&[], &mut out)).0, ET_ERR_INVALID_ARGUMENT);
    let rows = [a.0.cast_const(), ptr::null()];
    // SAFETY: live rows or NULL.
    let (_, message) = err(unsafe { api().batch_from_rows.unwrap()(rows.as_ptr(), 2, &mut out) });
    assert!(message.contains("row 1"), "{message}");
    assert!(out.is_null());
}

#[test]
fn merging_copies_under_a_prefix() {
    let _guard = no_leaks();
    let (a, b) = (Row::new(), Row::new());
    ok(a.tokens("ids", &[1, 2]));
    ok(b.tokens("ids", &[3]));
    ok(b.i64("label", &[4]));
    // SAFETY: live rows.
    unsafe {
        ok(api().row_merge.unwrap()(a.0, text("t/"), b.0));
        let again = api().row_merge.unwrap()(a.0, text("t/"), b.0);
        assert_eq!(err(again).0, ET_ERR_ALREADY_EXISTS);
        // Nothing of a merge that fails stays: "z" has no "label" after this.
        ok(a.i64("z/label", &[0]));
        assert_eq!(err(api().row_merge.unwrap()(a.0, text("z/"), b.0)).0, ET_ERR_ALREADY_EXISTS);
        ok(api().row_merge.unwrap()(b.0, text("self/"), b.0));
    }
    let batch = make(|out| collate(&[&a], out));
    let found = names(batch);
    assert!(found.contains(&"t/ids".into()) && !found.contains(&"z/ids".into()), "{found:?}");
    // SAFETY: an owned map.
    unsafe { api().map_release.unwrap()(batch) };
}

#[test]
fn maps_keep_order_and_references() {
    let _guard = no_leaks();
    // SAFETY: live handles throughout.
    unsafe {
        let map = make(|out| api().map_new.unwrap()(out));
        for (name, x) in [("b", 1.0), ("a", 2.0), ("c", 3.0), ("a", 4.0)] {
            let tensor = tensor(&[x], &[1]);
            ok(api().map_put.unwrap()(map, text(name), tensor));
            drop_tensor(tensor);
        }
        assert_eq!(names(map), ["b", "a", "c"]);
        assert_eq!(take_f32(get(map, "a")).0, [4.0]);
        api().map_remove.unwrap()(map, text("b"));
        api().map_remove.unwrap()(map, text("b"));
        assert_eq!(names(map), ["a", "c"]);
        assert_eq!(api().map_has.unwrap()(map, text("b")), 0);
        assert_eq!(api().map_has.unwrap()(map, text("c")), 1);
        let (code, message) = err(api().map_get.unwrap()(map, text("b"), &mut ptr::null_mut()));
        assert_eq!(code, ET_ERR_NOT_FOUND);
        assert!(message.contains("a, c"), "{message}");
        let kept = get(map, "c");
        assert_eq!(err(api().map_put.unwrap()(kept.cast(), text("x"), kept)).0, ET_ERR_BAD_HANDLE);
        api().map_release.unwrap()(map);
        assert_eq!(take_f32(kept).0, [3.0]);
        api().map_release.unwrap()(ptr::null_mut());
    }
}

#[test]
fn buffers_copy_and_map() {
    let _guard = no_leaks();
    let directory = scratch("buffers");
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    std::fs::write(path("full"), b"hello").unwrap();
    std::fs::write(path("empty"), b"").unwrap();
    // SAFETY: live handles throughout.
    unsafe {
        let bytes = |buffer| {
            let (data, size) =
                (api().buffer_data.unwrap()(buffer), api().buffer_size.unwrap()(buffer));
            slice_from(data.cast::<u8>(), size).unwrap().to_vec()
        };
        for (name, expected) in [("full", &b"hello"[..]), ("empty", b"")] {
            let buffer = make(|out| api().buffer_map_file.unwrap()(text(&path(name)), out));
            assert_eq!(bytes(buffer), expected);
            assert_eq!(api().buffer_data.unwrap()(buffer).is_null(), expected.is_empty());
            api().buffer_release.unwrap()(buffer);
        }
        let missing = api().buffer_map_file.unwrap()(text(&path("none")), &mut ptr::null_mut());
        let (code, message) = err(missing);
        assert_eq!(code, ET_ERR_NOT_FOUND);
        assert!(message.contains("none"), "{message}");
        let folder = api().buffer_map_file.unwrap()(text(&path("")), &mut ptr::null_mut());
        assert_eq!(err(folder).0, ET_ERR_IO);
        let buffer = make(|out| api().buffer_new.unwrap()(b"abc".as_ptr().cast(), 3, out));
        assert_eq!(bytes(buffer), b"abc");
        api().buffer_release.unwrap()(buffer);
        let null = api().buffer_new.unwrap()(ptr::null(), 3, &mut ptr::null_mut());
        assert_eq!(err(null).0, ET_ERR_INVALID_ARGUMENT);
        assert_eq!(
            err(api().buffer_new.unwrap()(ptr::null(), 0, ptr::null_mut())).0,
            ET_ERR_INVALID_ARGUMENT
        );
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn streams_write_then_read() {
    let _guard = no_leaks();
    let api: &et_host_stream = table(c"et.stream/1");
    let data = self::api();
    // SAFETY: live handles throughout.
    unsafe {
        let writer = make(|out| api.memory_new.unwrap()(ptr::null(), 0, out));
        ok(api.write.unwrap()(writer, b"abcdef".as_ptr().cast(), 6));
        let buffer = make(|out| api.bytes.unwrap()(writer, out));
        let (at, size) = (data.buffer_data.unwrap()(buffer), data.buffer_size.unwrap()(buffer));
        let reader = make(|out| api.memory_new.unwrap()(at, size, out));
        data.buffer_release.unwrap()(buffer);
        let mut read = [0u8; 4];
        ok(api.read.unwrap()(reader, read.as_mut_ptr().cast(), 4));
        assert_eq!(&read, b"abcd");
        assert_eq!(api.remaining.unwrap()(reader), 2);
        let (code, message) = err(api.read.unwrap()(reader, read.as_mut_ptr().cast(), 4));
        assert_eq!(code, ET_ERR_BAD_INPUT);
        assert!(message.contains("found 2"), "{message}");
        let wrong = api.write.unwrap()(reader, b"x".as_ptr().cast(), 1);
        assert_eq!(err(wrong).0, ET_ERR_FAILED_PRECONDITION);
        api.release.unwrap()(reader);
        api.release.unwrap()(writer);
        assert_eq!(
            err(api.memory_new.unwrap()(ptr::null(), 3, &mut ptr::null_mut())).0,
            ET_ERR_INVALID_ARGUMENT
        );
    }
}

#[test]
fn configurations_are_read_by_key() {
    let _guard = no_leaks();
    let api: &et_host_config = table(c"et.config/1");
    let json = r#"{"a": {"lr": 0.5, "n": 3, "on": true, "name": "x"}, "list": [1, 2]}"#;
    // SAFETY: live handles throughout.
    unsafe {
        let config = make(|out| api.parse.unwrap()(text(json), out));
        let (mut number, mut integer, mut on, mut len) = (0.0, 0, 0, 0);
        let mut name = text("");
        ok(api.f64_at.unwrap()(config, text("a.lr"), &mut number));
        ok(api.i64_at.unwrap()(config, text("a.n"), &mut integer));
        ok(api.bool_at.unwrap()(config, text("a.on"), &mut on));
        ok(api.str_at.unwrap()(config, text("a.name"), &mut name));
        ok(api.len_at.unwrap()(config, text("list"), &mut len));
        assert_eq!((number, integer, on, len, str_of(name).as_str()), (0.5, 3, 1, 2, "x"));
        assert_eq!(api.has.unwrap()(config, text("a.zz")), 0);
        assert_eq!(
            err(api.i64_at.unwrap()(config, text("a.lr"), &mut integer)).0,
            ET_ERR_BAD_INPUT
        );
        assert_eq!(err(api.i64_at.unwrap()(config, text("b"), &mut integer)).0, ET_ERR_NOT_FOUND);
        assert_eq!(integer, 3, "outs are left alone on error");
        api.release.unwrap()(config);
        let (code, message) = err(api.parse.unwrap()(text("{\n1}"), &mut ptr::null_mut()));
        assert_eq!(code, ET_ERR_BAD_INPUT);
        assert!(message.contains("line 2 column 1"), "{message}");
    }
}

#[test]
fn random_numbers_follow_their_state() {
    let _guard = no_leaks();
    let api: &et_host_rng = table(c"et.rng/1");
    // SAFETY: live handles throughout.
    unsafe {
        let rng = make(|out| api.create.unwrap()(7, 1, out));
        let shape = [3usize, 3];
        let draw = || {
            take_f32(make(|out| {
                api.uniform.unwrap()(rng, ET_DTYPE_F32, shape.as_ptr(), 2, -1.0, 1.0, out)
            }))
        };
        let first = draw();
        assert_eq!(first.1, [3, 3]);
        assert_eq!(api.state.unwrap()(rng).offset, 12);
        assert_ne!(draw(), first);
        api.set_state.unwrap()(rng, et_rng_state { seed: 7, stream: 1, offset: 0 });
        assert_eq!(draw(), first);
        let _ = api.bits.unwrap()(rng);
        assert_eq!(api.state.unwrap()(rng).offset, 14);
        let wrong = api.normal.unwrap()(
            rng,
            ET_DTYPE_I64,
            shape.as_ptr(),
            2,
            0.0,
            1.0,
            &mut ptr::null_mut(),
        );
        assert_eq!(err(wrong).0, ET_ERR_DTYPE);
        let wrong = api.normal.unwrap()(
            rng,
            ET_DTYPE_F32,
            shape.as_ptr(),
            2,
            0.0,
            -1.0,
            &mut ptr::null_mut(),
        );
        assert_eq!(err(wrong).0, ET_ERR_INVALID_ARGUMENT);
        drop_tensor(make(|out| {
            api.normal.unwrap()(rng, ET_DTYPE_F64, ptr::null(), 0, 0.0, 1.0, out)
        }));
        assert_eq!(api.state.unwrap()(rng).offset, 18);
        api.release.unwrap()(rng);
    }
}

#[test]
fn log_takes_any_text() {
    let _guard = no_leaks();
    let api: &et_host_log = table(c"et.log/1");
    let bad = [0xffu8];
    // SAFETY: readable bytes; one text is not UTF-8, one is NULL with a length, which is refused.
    unsafe {
        api.write.unwrap()(ET_LOG_DEBUG, text("test"), text("not shown"));
        api.write.unwrap()(99, text("test"), et_str { ptr: bad.as_ptr().cast(), len: 1 });
        api.write.unwrap()(ET_LOG_DEBUG, text("test"), et_str { ptr: ptr::null(), len: 1 });
    }
}
