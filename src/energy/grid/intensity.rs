//! Carbon intensity of electricity by country, in grams of CO2-equivalent per kilowatt-hour: yearly
//! averages, data only.
//!
//! Rounded from Our World in Data (after Ember and the Energy Institute) as compiled in
//! `CodeCarbon` 3.3 (MIT): generation inside the country, without trade, of countries with at least
//! 15 terawatt-hours a year. The intensity of a single hour may be half or twice the yearly
//! average.

/// One country's grid, averaged over a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// ISO 3166-1 alpha-3, or [`WORLD`].
    pub zone: &'static str,
    pub grams_per_kwh: u16,
    pub year: u16,
}

/// The zone of electricity of unknown origin.
pub const WORLD: &str = "world";

/// Source of the table.
pub const SOURCE: &str = "Our World in Data, as in CodeCarbon 3.3";

/// Looks a zone up, ignoring case.
pub fn find(zone: &str) -> Option<Row> {
    TABLE.iter().copied().find(|row| row.zone.eq_ignore_ascii_case(zone))
}

const fn row(zone: &'static str, grams_per_kwh: u16, year: u16) -> Row {
    Row { zone, grams_per_kwh, year }
}

/// Sorted by zone after the world, the mean of all 213 countries of the source weighted by their
/// generation.
#[rustfmt::skip]
pub const TABLE: [Row; 95] = [
    row(WORLD, 481, 2023),
    row("AGO", 175, 2022), row("ARE", 561, 2022), row("ARG", 354, 2023), row("AUS", 549, 2023),
    row("AUT", 111, 2023), row("AZE", 671, 2022), row("BEL", 138, 2023), row("BGD", 691, 2023),
    row("BGR", 335, 2023), row("BHR", 905, 2022), row("BIH", 600, 2023), row("BLR", 442, 2022),
    row("BRA", 98, 2023), row("CAN", 170, 2023), row("CHE", 35, 2023), row("CHL", 291, 2023),
    row("CHN", 582, 2023), row("COL", 260, 2023), row("CUB", 638, 2022), row("CZE", 450, 2023),
    row("DEU", 381, 2023), row("DNK", 152, 2023), row("DOM", 581, 2022), row("DZA", 635, 2022),
    row("ECU", 150, 2023), row("EGY", 570, 2023), row("ESP", 174, 2023), row("ETH", 25, 2022),
    row("FIN", 79, 2023), row("FRA", 56, 2023), row("GBR", 238, 2023), row("GHA", 484, 2022),
    row("GRC", 337, 2023), row("HKG", 699, 2022), row("HRV", 205, 2023), row("HUN", 204, 2023),
    row("IDN", 676, 2022), row("IND", 713, 2023), row("IRL", 291, 2023), row("IRN", 655, 2023),
    row("IRQ", 689, 2022), row("ISL", 28, 2022), row("ISR", 583, 2022), row("ITA", 331, 2023),
    row("JOR", 541, 2022), row("JPN", 485, 2023), row("KAZ", 821, 2023), row("KOR", 431, 2023),
    row("KWT", 649, 2023), row("LAO", 266, 2022), row("LBY", 819, 2022), row("LKA", 510, 2022),
    row("MAR", 630, 2023), row("MEX", 507, 2023), row("MMR", 399, 2023), row("MOZ", 136, 2022),
    row("MYS", 606, 2022), row("NGA", 523, 2023), row("NLD", 268, 2023), row("NOR", 30, 2023),
    row("NZL", 113, 2023), row("OMN", 565, 2023), row("PAK", 441, 2023), row("PER", 266, 2023),
    row("PHL", 611, 2023), row("POL", 662, 2023), row("PRI", 679, 2022), row("PRK", 390, 2022),
    row("PRT", 166, 2023), row("PRY", 24, 2023), row("QAT", 602, 2023), row("ROU", 241, 2023),
    row("RUS", 441, 2023), row("SAU", 707, 2022), row("SDN", 263, 2022), row("SGP", 471, 2023),
    row("SRB", 636, 2023), row("SVK", 117, 2023), row("SVN", 231, 2023), row("SWE", 41, 2023),
    row("SYR", 702, 2022), row("THA", 550, 2023), row("TJK", 117, 2022), row("TKM", 1306, 2022),
    row("TUN", 564, 2023), row("TUR", 465, 2023), row("TWN", 642, 2023), row("UKR", 260, 2022),
    row("USA", 369, 2023), row("UZB", 1168, 2022), row("VEN", 186, 2022), row("VNM", 475, 2023),
    row("ZAF", 708, 2023), row("ZMB", 112, 2022),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_unique_and_their_figures_those_of_real_grids() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|earlier| earlier.zone != row.zone), "{row:?}");
            // Hydropower alone is some 10 to 30 g, lignite 1000 g, the oldest gas turbines 1300 g.
            assert!((20..1400).contains(&row.grams_per_kwh), "{row:?}");
            assert!((2020..2027).contains(&row.year), "{row:?}");
        }
    }

    #[test]
    fn a_zone_is_found_in_any_case_and_an_unknown_one_is_not() {
        assert_eq!(find("fra").unwrap().grams_per_kwh, 56);
        assert_eq!(find("WORLD"), Some(TABLE[0]));
        assert_eq!(find("Atlantis"), None);
    }
}
