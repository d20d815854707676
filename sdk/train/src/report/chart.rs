//! Curves as SVG.

use std::fmt::Write;

use super::{escape, number};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// More points than this would not be told apart.
const MOST_POINTS: usize = 1500;
const COLORS: [&str; 6] = ["#1565c0", "#c62828", "#2e7d32", "#6a1b9a", "#ef6c00", "#455a64"];

/// A named curve.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Points (x, y) in order of x, usually step and value. A value that is not finite is a gap.
    pub points: Vec<(f64, f64)>,
}

/// The lowest and highest of finite numbers, a little apart if they are equal; 0 and 1 if there are none.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match (low, high) {
        (low, high) if low > high => (0.0, 1.0),
        (low, high) if low == high => {
            let room = (low.abs() * 0.1).max(1e-9);
            (low - room, high + room)
        }
        both => both,
    }
}

/// A chart of curves with common axes, as an `svg` element.
pub(super) fn draw(curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|curve| curve.points.iter());
    let (x_low, x_high) = extent(all().map(|point| point.0));
    let (y_low, y_high) = extent(all().map(|point| point.1));
    let (inner_width, inner_height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    // Halved first, so that even the widest range of numbers has a finite width.
    let scale = |value: f64, low: f64, high: f64| {
        ((value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)).clamp(0.0, 1.0)
    };
    let place = |x: f64, y: f64| {
        let x = LEFT + scale(x, x_low, x_high) * inner_width;
        (x, TOP + (1.0 - scale(y, y_low, y_high)) * inner_height)
    };
    // Writing to a string cannot fail, so the results below are dropped.
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
         font-size=\"11\" fill=\"#555\">\n"
    );
    for tick in 0..=4 {
        let part = f64::from(tick) / 4.0;
        let y = TOP + (1.0 - part) * inner_height;
        let value = number(y_low * (1.0 - part) + y_high * part);
        let (end, text) = (WIDTH - RIGHT, LEFT - 6.0);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"#e0e0e0\"/>\
             <text x=\"{text}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            y + 4.0
        );
        let x = LEFT + part * inner_width;
        let value = x_low * (1.0 - part) + x_high * part;
        let anchor = if tick == 4 { "end" } else { "middle" };
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{value:.0}</text>",
            HEIGHT - 8.0
        );
    }
    for (index, curve) in curves.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let step = curve.points.len().div_ceil(MOST_POINTS).max(1);
        let mut path = String::new();
        let mut pen_down = false;
        let last = curve.points.len().saturating_sub(1);
        for (at, &(x, y)) in curve.points.iter().enumerate() {
            if !(x.is_finite() && y.is_finite()) {
                pen_down = false;
                continue;
            }
            if at % step != 0 && at != last {
                continue;
            }
            let (x, y) = place(x, y);
            let _ = write!(path, "{}{x:.1} {y:.1}", if pen_down { 'L' } else { 'M' });
            if !pen_down {
                // A dot of no length shows a point that has no neighbour.
                path.push_str("h0");
            }
            pen_down = true;
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\" \
             stroke-linecap=\"round\"/>"
        );
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"{color}\">{}</text>",
            WIDTH - RIGHT - 4.0,
            TOP + 12.0 + 14.0 * index as f64,
            escape(&curve.name)
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve { name: "c".to_string(), points: points.to_vec() }
    }

    #[test]
    fn corners_are_where_the_extremes_are() {
        let svg = draw(&[curve(&[(0.0, 1.0), (100.0, 3.0)])]);
        assert!(svg.contains("M70.0 214.0h0L708.0 12.0"), "{svg}");
        assert!(svg.contains(">3.0000<") && svg.contains(">100<"));
    }

    #[test]
    fn gaps_and_odd_numbers_are_harmless() {
        let svg = draw(&[curve(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 2.0)])]);
        assert_eq!(svg.matches("h0").count(), 2);
        for points in [&[][..], &[(1.0, 5.0)], &[(0.0, f64::MAX), (1.0, f64::MIN)]] {
            let svg = draw(&[curve(points)]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn long_curves_are_thinned() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        assert!(draw(&[curve(&points)]).len() < 40_000);
    }
}
