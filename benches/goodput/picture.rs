//! Tokens per second against the limit, one panel a client.

use std::fmt::Write;

use super::play::Game;

const WIDTH: f64 = 800.0;
const PANEL: f64 = 120.0;
const LEFT: f64 = 60.0;
/// Where the time line ends; half a label goes beyond it.
const RIGHT: f64 = WIDTH - 25.0;
const TOP: f64 = 30.0;
/// The highest bar, in limits; a burst goes beyond it and is cut.
const HIGHEST: f64 = 4.0;

/// An SVG of the games, against `tpm` tokens a minute.
pub(crate) fn draw(title: &str, tpm: u64, games: &[(&str, Game)]) -> String {
    let seconds = |game: &Game| game.admissions.last().map_or(0.0, |admission| admission.at.as_secs_f64());
    let span = (games.iter().map(|(_, game)| seconds(game)).fold(60.0, f64::max) / 60.0).ceil() * 60.0;
    let height = TOP + games.len() as f64 * (PANEL + 30.0) + 10.0;
    let x = |second: f64| LEFT + second / span * (RIGHT - LEFT);
    let limit = tpm as f64 / 60.0;
    let mut svg = String::new();
    // Writing to a String cannot fail.
    let mut put = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(svg, "{text}");
    };
    put(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="11">"#
    ));
    put(format_args!(r#"<rect width="100%" height="100%" fill="white"/>"#));
    put(format_args!(r#"<text x="10" y="18" font-size="13">{title}</text>"#));
    for (index, (name, game)) in games.iter().enumerate() {
        let base = TOP + index as f64 * (PANEL + 30.0) + PANEL + 10.0;
        let y = |rate: f64| base - (rate / limit).min(HIGHEST) / HIGHEST * (PANEL - 14.0);
        let mut rates = vec![0; span as usize + 1];
        for admission in &game.admissions {
            rates[admission.at.as_secs() as usize] += admission.tokens;
        }
        for (second, rate) in rates.iter().enumerate().filter(|(_, rate)| **rate > 0) {
            let (rate, left) = (*rate as f64, x(second as f64));
            let (top, width) = (y(rate), x(second as f64 + 1.0) - left);
            put(format_args!(
                r##"<rect x="{left:.1}" y="{top:.1}" width="{width:.2}" height="{:.1}" fill="#4a7fb5"/>"##,
                base - top
            ));
        }
        let mut refused = vec![0; span as usize + 1];
        for at in &game.refusals {
            refused[(at.as_secs() as usize).min(span as usize)] += 1;
        }
        for second in (0..refused.len()).filter(|second| refused[*second] > 0) {
            let at = x(second as f64 + 0.5);
            put(format_args!(r##"<circle cx="{at:.1}" cy="{:.1}" r="1.5" fill="#c0392b"/>"##, base + 5.0));
        }
        put(format_args!(
            r##"<line x1="{LEFT}" y1="{0:.1}" x2="{RIGHT}" y2="{0:.1}" stroke="#c0392b" stroke-dasharray="4 3"/>"##,
            y(limit)
        ));
        put(format_args!(r##"<line x1="{LEFT}" y1="{base}" x2="{RIGHT}" y2="{base}" stroke="#888"/>"##));
        put(format_args!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{limit:.0}/s</text>"#,
            LEFT - 4.0,
            y(limit) + 4.0
        ));
        put(format_args!(
            r#"<text x="{LEFT}" y="{:.1}">{name}: {:.0} s, {} × 429</text>"#,
            base - PANEL + 8.0,
            seconds(game),
            game.refusals.len()
        ));
        for minute in 0..=(span / 60.0) as usize {
            let at = x(minute as f64 * 60.0);
            put(format_args!(r#"<text x="{at:.1}" y="{:.1}" text-anchor="middle">{minute} min</text>"#, base + 17.0));
        }
    }
    put(format_args!("</svg>"));
    svg
}
