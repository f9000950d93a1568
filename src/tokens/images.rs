//! What a picture costs, by OpenAI's guide "Images and vision".

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::encoding::base_name;

/// What a picture was seen to be charged at admission, whatever its size: 85 + 4 · 170, four tiles of gpt-4o.
pub(super) const FLAT: u64 = 765;

/// How closely the model looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    Low,
    High,
    Original,
    /// Also when nothing is said. Counted as `High`, the dearer of the two it may turn out to be.
    Auto,
}

impl Detail {
    pub(super) fn named(name: Option<&str>) -> Self {
        match name {
            Some("low") => Self::Low,
            Some("high") => Self::High,
            Some("original") => Self::Original,
            _ => Self::Auto,
        }
    }
}

/// How a family of models prices pictures.
#[derive(Clone, Copy, Debug)]
enum Price {
    /// A base, and a price for each tile of 512 × 512.
    Tiles { base: u64, tile: u64 },
    /// Patches of 32 × 32 up to a budget, times `percent` / 100.
    Patches { percent: u64, high: Budget, original: Budget },
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    patches: u64,
    side: u64,
}

const SMALL: Budget = Budget { patches: 1_536, side: 2_048 };
const HIGH: Budget = Budget { patches: 2_500, side: 2_048 };
const ORIGINAL: Budget = Budget { patches: 10_000, side: 6_000 };
/// "Not resized": no budget.
const UNLIMITED: Budget = Budget { patches: u64::MAX, side: u64::MAX };

const fn tiles(base: u64, tile: u64) -> Price {
    Price::Tiles { base, tile }
}

const fn patches(percent: u64) -> Price {
    Price::Patches { percent, high: SMALL, original: SMALL }
}

/// Families by prefix, the longer names first.
const PRICES: &[(&str, Price)] = &[
    ("gpt-4o-mini", tiles(2_833, 5_667)),
    ("gpt-4.1-mini", patches(162)),
    ("gpt-4.1-nano", patches(246)),
    ("gpt-5-mini", patches(162)),
    ("gpt-5-nano", patches(246)),
    ("gpt-5-codex-mini", patches(100)),
    ("gpt-5-codex", patches(100)),
    ("gpt-5.1-codex", patches(100)),
    ("codex-mini", patches(100)),
    ("gpt-5.2", patches(100)),
    ("gpt-5.3", patches(100)),
    ("gpt-5.4-mini", patches(162)),
    ("gpt-5.4-nano", patches(246)),
    ("gpt-5.4", Price::Patches { percent: 100, high: HIGH, original: ORIGINAL }),
    ("gpt-5.5", Price::Patches { percent: 100, high: HIGH, original: ORIGINAL }),
    ("gpt-5.6", Price::Patches { percent: 100, high: HIGH, original: UNLIMITED }),
    ("o4-mini", patches(172)),
    ("gpt-5", tiles(70, 140)),
    ("o1", tiles(75, 150)),
    ("o3", tiles(75, 150)),
    ("computer-use-preview", tiles(65, 129)),
];

/// gpt-4o, gpt-4.1, gpt-4.5 and gpt-4, and the guess for models without a row.
const USUAL: Price = tiles(85, 170);

/// Tokens of a picture of `size` (width, height) for `model`.
///
/// A picture whose size is not known (a remote URL, a file id) counts as four tiles, which is what providers were seen
/// to reserve for any picture and what a square or 4:3 photograph comes to; or as the whole patch budget, which any
/// photograph fills.
pub(super) fn image_tokens(model: &str, detail: Detail, size: Option<(u64, u64)>) -> u64 {
    let name = base_name(model);
    let price = PRICES.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(USUAL, |(_, price)| *price);
    match (price, detail, size) {
        (Price::Tiles { base, .. }, Detail::Low, _) => base,
        (Price::Tiles { base, tile }, _, Some(size)) => base + tile * tile_count(size),
        (Price::Tiles { base, tile }, _, None) => base + tile * 4,
        (Price::Patches { percent, .. }, Detail::Low, size) => {
            // Seen at 512 × 512 at most.
            let low = Budget { patches: 256, side: 512 };
            (size.map_or(low.patches, |size| patch_count(size, low)) * percent).div_ceil(100)
        }
        (Price::Patches { percent, high, original }, _, size) => {
            // A model that never resizes does so with `auto` as well.
            let unlimited = original.patches == u64::MAX && detail != Detail::High;
            let budget = if detail == Detail::Original || unlimited { original } else { high };
            let unknown = if unlimited { ORIGINAL.patches } else { budget.patches };
            let count = size.map_or(unknown, |size| patch_count(size, budget));
            count.saturating_mul(percent).div_ceil(100)
        }
    }
}

/// Tiles after shrinking into 2048 × 2048 and then to a shortest side of 768; never enlarged.
fn tile_count((width, height): (u64, u64)) -> u64 {
    let (width, height) = (width.max(1) as u128, height.max(1) as u128);
    // Both steps are one: the smallest of 1, 2048 / longest and 768 / shortest. In whole numbers, because 1536.0000001
    // pixels would be a tile more.
    let (long, short) = (width.max(height), width.min(height));
    let (by, of) = [(2048, long), (768, short)]
        .into_iter()
        .fold((1, 1), |(by, of), (limit, side)| if limit * of < by * side { (limit, side) } else { (by, of) });
    let along = |side: u128| (side * by).div_ceil(of * 512).max(1) as u64;
    along(width) * along(height)
}

/// Patches after shrinking to the longest side and then to the budget, so that whole patches fit.
fn patch_count((width, height): (u64, u64), budget: Budget) -> u64 {
    let (mut width, mut height) = (width.max(1) as f64, height.max(1) as f64);
    let shrink = (budget.side as f64 / width.max(height)).min(1.0);
    (width, height) = (width * shrink, height * shrink);
    let patches = |side: f64| (side / 32.0 - 1e-6).ceil().max(1.0);
    let count = patches(width) * patches(height);
    if count <= budget.patches as f64 {
        return count as u64;
    }
    let ratio = (32.0 * 32.0 * budget.patches as f64 / (width * height)).sqrt();
    let (across, down) = (width * ratio / 32.0, height * ratio / 32.0);
    // A strip thinner than a patch cannot be fitted to whole patches; the budget bounds it.
    if across < 1.0 || down < 1.0 {
        return budget.patches;
    }
    let fit = (across.floor() / across).min(down.floor() / down);
    let patches = |side: f64| (side * fit - 1e-6).ceil().max(1.0);
    ((patches(across) * patches(down)) as u64).min(budget.patches)
}

/// How much of a picture is decoded in search of its size. PNG, GIF and WebP have it in the first 32 bytes, JPEG
/// behind its metadata: nearly always within 4 KiB, with an embedded preview or colour profile within 128.
const HEADS: [usize; 2] = [4 << 10, 128 << 10];

/// Width and height of a picture given as `data:image/…;base64,…`.
pub(super) fn data_url_size(url: &str) -> Option<(u64, u64)> {
    // The media type is short; a comma far inside is none of ours.
    let comma = url.bytes().take(256).position(|byte| byte == b',')?;
    let (head, data) = (&url[..comma], &url[comma + 1..]);
    if head.starts_with("data:") && head.ends_with(";base64") { base64_size(data) } else { None }
}

/// Width and height of a picture given as base64.
pub(super) fn base64_size(data: &str) -> Option<(u64, u64)> {
    let data = data.trim_end_matches('=').as_bytes();
    HEADS.iter().find_map(|head| {
        // Whole groups of four characters; what a cut leaves over is not needed.
        let part = data.get(..(head / 3 * 4)).unwrap_or(data);
        let bytes = STANDARD_NO_PAD.decode(&part[..part.len() / 4 * 4]).ok()?;
        let size = imagesize::blob_size(&bytes).ok()?;
        Some((size.width as u64, size.height as u64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_models_cost_as_in_the_guide() {
        let table = [
            ("gpt-4o", Detail::High, (1024, 1024), 765),
            ("gpt-4o", Detail::Auto, (1024, 1024), 765),
            ("gpt-4o", Detail::Low, (4096, 8192), 85),
            ("gpt-4o", Detail::High, (2048, 4096), 1105),
            ("gpt-4o", Detail::High, (512, 512), 255),
            ("gpt-4o", Detail::High, (1, 1), 255),
            ("openai/gpt-4o", Detail::High, (100_000, 1), 85 + 4 * 170),
            ("gpt-4o-mini", Detail::High, (1024, 1024), 2833 + 4 * 5667),
            ("gpt-4o-mini-2024-07-18", Detail::Low, (1024, 1024), 2833),
            ("gpt-5", Detail::High, (1024, 1024), 70 + 4 * 140),
            ("o1", Detail::High, (1024, 1024), 75 + 4 * 150),
            ("computer-use-preview", Detail::High, (1024, 768), 65 + 4 * 129),
        ];
        for (model, detail, size, tokens) in table {
            assert_eq!(image_tokens(model, detail, Some(size)), tokens, "{model} {detail:?} {size:?}");
        }
    }

    #[test]
    fn patch_models_cost_as_in_the_guide() {
        assert_eq!(patch_count((1024, 1024), SMALL), 1024);
        assert_eq!(patch_count((1800, 2400), SMALL), 1452);
        let table = [
            ("gpt-5.2", Detail::High, (1800, 2400), 1452),
            ("gpt-4.1-mini", Detail::High, (1024, 1024), 1659),
            ("gpt-5-nano", Detail::Auto, (1024, 1024), 2520),
            ("o4-mini", Detail::High, (1024, 1024), 1762),
            ("gpt-5.4", Detail::High, (1024, 1024), 1024),
            ("gpt-5.4", Detail::Original, (3200, 3200), 10_000),
            ("gpt-5.6", Detail::Auto, (6400, 3200), 20_000),
            ("gpt-5.6", Detail::Low, (6400, 3200), 128),
            ("gpt-5.4-mini", Detail::Low, (2000, 2000), 415),
        ];
        for (model, detail, size, tokens) in table {
            assert_eq!(image_tokens(model, detail, Some(size)), tokens, "{model} {detail:?} {size:?}");
        }
    }

    #[test]
    fn an_unknown_size_costs_four_tiles_or_the_whole_budget() {
        assert_eq!(image_tokens("gpt-4o", Detail::Auto, None), FLAT);
        assert_eq!(image_tokens("a-model-of-tomorrow", Detail::Auto, None), FLAT);
        assert_eq!(image_tokens("gpt-5.2", Detail::Auto, None), 1_536);
        assert_eq!(image_tokens("gpt-5-mini", Detail::Auto, None), 2_489);
        assert_eq!(image_tokens("gpt-5.4", Detail::Auto, None), 2_500);
        assert_eq!(image_tokens("gpt-5.6", Detail::Auto, None), 10_000);
        assert_eq!(image_tokens("o4-mini", Detail::Low, None), 441);
    }

    #[test]
    fn absurd_sizes_neither_panic_nor_exceed_the_budget() {
        for size in [(0, 0), (u64::MAX, u64::MAX), (u64::MAX, 1), (1, u64::MAX), (65_535, 3)] {
            assert!(tile_count(size) <= 8, "{size:?}");
            assert!(patch_count(size, SMALL) <= 1_536, "{size:?}");
            image_tokens("gpt-5.6", Detail::Original, Some(size));
        }
    }

    #[test]
    fn sizes_are_read_from_the_first_bytes() {
        let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAABLAAAASwCAIAAABkwvFbAAAA";
        assert_eq!(data_url_size(png), Some((1200, 1200)));
        let gif = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
        assert_eq!(data_url_size(gif), Some((1, 1)));
        let webp = "data:image/webp;base64,UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==";
        assert_eq!(data_url_size(webp), Some((1, 1)));
    }

    #[test]
    fn a_jpeg_with_long_metadata_is_still_measured() {
        let mut jpeg = vec![0xFF, 0xD8, 0xFF, 0xE1, 0xC0, 0x00];
        jpeg.resize(4 + 0xC000, 0);
        jpeg.extend([0xFF, 0xC0, 0, 17, 8, 0x02, 0x58, 0x03, 0x20, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
        jpeg.resize(60_000, 0);
        assert_eq!(base64_size(&STANDARD_NO_PAD.encode(&jpeg)), Some((800, 600)));
    }

    #[test]
    fn what_is_no_picture_has_no_size() {
        for url in [
            "",
            "data:",
            "data:image/png;base64,",
            "data:image/png;base64,!!!!",
            "https://example.com/a.png",
            "data:,x",
        ] {
            assert_eq!(data_url_size(url), None, "{url}");
        }
    }
}
