use super::*;

#[test]
fn parameters_begin_at_aligned_places() {
    let (spans, len) = lay_out([3usize, 0, 16, 17].into_iter());
    assert_eq!(spans.iter().map(|s| s.start).collect::<Vec<_>>(), [0, 16, 16, 32]);
    assert_eq!(len, 64);
}

#[test]
fn first_contribution_overwrites_and_later_ones_add() {
    let (spans, len) = lay_out([2usize, 2].into_iter());
    let arena = Arena::new(vec![0f32; len], spans).unwrap();
    let grad = |a: f32| tensor_from_vec(vec![a, 2.0 * a], 2).unwrap();
    arena.accumulate(0, &grad(1.0)).unwrap();
    arena.accumulate(0, &grad(2.0)).unwrap();
    assert_eq!(arena.grad_square_sum(None).unwrap(), 9.0 + 36.0);
    assert!(arena.has_grad(0) && !arena.has_grad(1));
    arena.scale_grads(2.0, None).unwrap();
    assert_eq!(arena.grad_square_sum(None).unwrap(), 4.0 * 45.0);
    arena.forget_all(None);
    assert_eq!(arena.grad_square_sum(None).unwrap(), 0.0);
    arena.accumulate(0, &grad(1.0)).unwrap();
    assert_eq!(arena.grad_square_sum(None).unwrap(), 5.0);
    assert!(arena.accumulate(1, &tensor_from_vec(vec![1f64, 2.0], 2).unwrap()).is_err());
    assert!(!arena.has_grad(1));
}

/// Writes rows as an embedding does.
fn add_rows(arena: &Arena, rows: &[u32], value: f32) {
    arena
        .add_to_rows::<f32, _>(0, 2, rows, |slot| {
            for &row in rows {
                slot[row as usize * 2..][..2].iter_mut().for_each(|x| *x += value);
            }
        })
        .unwrap();
}

/// An arena of one table [4, 2] whose gradients' memory holds garbage.
fn table() -> Arena {
    let (spans, len) = lay_out([8usize].into_iter());
    let arena = Arena::new(vec![0f32; len], spans).unwrap();
    arena.accumulate(0, &tensor_from_vec(vec![7f32; 8], 8).unwrap()).unwrap();
    arena.forget_all(None);
    arena
}

fn settled(arena: &Arena) -> Vec<f32> {
    storage::with_f32(arena.settled_grads().unwrap(), |grads| grads[..8].to_vec()).unwrap()
}

#[test]
fn rows_that_nobody_touched_are_zero_for_every_reader() {
    let arena = table();
    add_rows(&arena, &[1], 1.0);
    add_rows(&arena, &[0, 1, 3], 2.0);
    assert_eq!(arena.touched(0).as_ref().unwrap().rows, [0, 1, 3]);
    assert_eq!(arena.grad_square_sum(None).unwrap(), 4. + 4. + 9. + 9. + 4. + 4.);
    arena.scale_grads(0.5, None).unwrap();
    assert_eq!(arena.grad_square_sum(None).unwrap(), 34.0 / 4.0);
    assert_eq!(settled(&arena), [1., 1., 1.5, 1.5, 0., 0., 1., 1.]);
    assert_eq!((arena.touched(0).clone(), arena.pending_scale()), (None, 1.0));
}

#[test]
fn whole_gradients_and_rows_add_up_in_either_order() {
    let whole = tensor_from_vec(vec![1f32; 8], 8).unwrap();
    let arena = table();
    add_rows(&arena, &[2], 1.0);
    arena.scale_grads(2.0, None).unwrap();
    arena.accumulate(0, &whole).unwrap();
    assert_eq!(settled(&arena), [1., 1., 1., 1., 3., 3., 1., 1.]);
    let arena = table();
    arena.accumulate(0, &whole).unwrap();
    add_rows(&arena, &[2], 1.0);
    assert_eq!(settled(&arena), [1., 1., 1., 1., 2., 2., 1., 1.]);
}

#[test]
fn rows_of_another_width_make_the_gradient_whole() {
    let arena = table();
    add_rows(&arena, &[3], 1.0);
    arena.add_to_rows::<f32, _>(0, 4, &[0], |slot| slot[0] += 5.0).unwrap();
    assert_eq!(settled(&arena), [5., 0., 0., 0., 0., 0., 1., 1.]);
}
