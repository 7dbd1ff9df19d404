//! Small SVG line plots, without a library and without colours that print alike.

use std::fmt::Write;

use hdrhistogram::Histogram;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 4] = ["#0050a0", "#c04000", "#208020", "#707070"];

/// Points of a percentile curve: 1/(1-p) against microseconds, from the median to the maximum.
pub fn percentiles(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    histogram
        .iter_quantiles(5)
        .filter(|point| point.quantile() >= 0.5 && point.quantile() < 1.0)
        .map(|point| (1.0 / (1.0 - point.quantile()), point.value_iterated_to() as f64 / 1e3))
        .collect()
}

/// A plot of named series. `log_x`: the horizontal axis is logarithmic.
pub fn svg(
    title: &str,
    x_name: &str,
    y_name: &str,
    series: &[(String, Vec<(f64, f64)>)],
    log_x: bool,
) -> String {
    let scale = |x: f64| if log_x { x.max(1.0).log10() } else { x };
    let points = || series.iter().flat_map(|(_, points)| points.iter());
    let top = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
    let left = points().map(|point| scale(point.0)).fold(f64::INFINITY, f64::min);
    let right = points().map(|point| scale(point.0)).fold(f64::NEG_INFINITY, f64::max);
    let span = if right > left { right - left } else { 1.0 };
    let left = if left.is_finite() { left } else { 0.0 };
    let x = |value: f64| MARGIN + (scale(value) - left) / span * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - value / top * (HEIGHT - 2.0 * MARGIN);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    let (bottom, end) = (HEIGHT - MARGIN, WIDTH - MARGIN);
    let _ = writeln!(
        text,
        "<path d=\"M{MARGIN} {MARGIN}V{bottom}H{end}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{MARGIN}\" y=\"{}\">0 {unit}</text><text x=\"{MARGIN}\" y=\"{}\">{top:.4} {unit}</text>\n\
         <text x=\"{end}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        bottom + 16.0,
        MARGIN - 6.0,
        bottom + 32.0,
        escape(x_name),
        unit = escape(y_name),
    );
    for (index, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line: Vec<String> =
            points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
        let legend = MARGIN + 16.0 * index as f64;
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <text x=\"{end}\" y=\"{legend}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
            line.join(" "),
            escape(name)
        );
    }
    text + "</svg>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_one_point_are_plots_too() {
        for points in [vec![], vec![(1.0, 2.0)]] {
            let text = svg("a < b", "x", "us", &[("n".into(), points)], true);
            assert!(text.contains("a &lt; b") && !text.contains("NaN") && !text.contains("inf"));
        }
    }
}
