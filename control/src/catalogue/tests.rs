use super::*;

/// One cell of a CSV line, quotes understood.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut is_quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

#[test]
fn the_built_in_file_is_read_whole() {
    let catalogue = Catalogue::default().with(Path::new("regions.toml"), REGIONS).unwrap();
    let of = |kind| catalogue.regions().iter().filter(|region| region.kind == kind).count();
    assert!(of(RegionKind::Colocation) >= 12 && of(RegionKind::Cloud) >= 10);
    for provider in ["AWS", "GCP", "Azure"] {
        assert!(catalogue.regions().iter().any(|region| region.provider == provider));
    }
    assert_eq!(Catalogue::built_in().regions(), catalogue.regions());
    let with_calendars = catalogue.clone().with(Path::new("calendars.toml"), calendar::BUILT_IN);
    assert!(
        with_calendars.unwrap().calendars().venues().eq(Catalogue::built_in().calendars().venues())
    );
    for name in ["ny4", "ny5", "NY4", "equinix_ny4", "EquinixNy4", "EQUINIX_NY4"] {
        assert_eq!(catalogue.region(name).unwrap().id, "equinix_ny4", "{name}");
    }
    for name in
        ["us-east-1", "europe-west1", "japaneast", "ld4", "fr2", "ty3", "hkex", "sgx", "asx"]
    {
        assert!(catalogue.region(name).is_some(), "{name}");
    }
    assert!(catalogue.resolve("us_east").len() > 3 && catalogue.resolve("UsEast").len() > 3);
    assert!(catalogue.resolve("mars").is_empty());
}

#[test]
fn distances_are_those_of_the_globe() {
    let region = |name| Catalogue::built_in().region(name).unwrap();
    // The shortest line of the microwave networks between the two is quoted as 1180 km or a little more.
    let km = region("aurora").distance_km(region("carteret"));
    assert!((1_175.0..1_190.0).contains(&km), "{km}");
    let km = region("ld4").distance_km(region("ny4"));
    assert!((5_520.0..5_600.0).contains(&km), "{km}");
    assert_eq!(region("ld4").distance_km(region("ld4")), 0.0);
    let floor_us = region("aurora").floor_us(region("carteret"));
    assert!((3_900.0..3_960.0).contains(&floor_us), "{floor_us}");
    assert_eq!(region("us-east-1").floor_us(region("us-east4")), 0.0);
}

#[test]
fn a_sites_file_replaces_and_adds_and_is_checked() {
    let region = |id: &str, more: &str| {
        format!(
            "[[region]]\nid = \"{id}\"\nname = \"X\"\nkind = \"Cloud\"\nprovider = \"p\"\nlatitude_deg = 1\n\
             longitude_deg = 2.5\naccuracy_km = 9\ntime_zone = \"Etc/UTC\"\nvenues = [\"xlab\"]\n{more}"
        )
    };
    let with = |text: &str| Catalogue::built_in().clone().with(Path::new("own.toml"), text);
    let catalogue = with(&(region("equinix_ny4", "") + &region("lab-1", ""))).unwrap();
    assert_eq!(catalogue.regions().len(), Catalogue::built_in().regions().len() + 1);
    assert_eq!(catalogue.region("equinix_ny4").unwrap().name, "X");
    assert!(catalogue.region("ny4").is_none(), "the replaced region's aliases went with it");
    for (text, message) in [
        (region("Bad Id", ""), "region[0].id"),
        (region("lab", "aliases = [\"ld4\"]\n"), "ld4 is already equinix_ld4"),
        (region("lab", "hosts = 3\n"), "hosts"),
        (region("lab", "").replace("= 2.5", "= 181"), "region[0].longitude_deg"),
        (region("lab", "").replace("= 1\n", "= -90.1\n"), "region[0].latitude_deg"),
        (region("lab", "").replace("= 9", "= nan"), "region[0].accuracy_km"),
        (region("lab", "").replace("Etc/UTC", "Etc//UTC"), "region[0].time_zone"),
        (region("lab", "").replace("xlab", "XLAB"), "region[0].venues"),
        (region("lab", "").replace("Cloud", "Moon"), "Moon"),
        ("[[group]]\nid = \"g\"\nregions = [\"nowhere\"]\n".into(), "group[0].regions[0]"),
        ("[[group]]\nid = \"ny4\"\nregions = [\"ld4\"]\n".into(), "ny4 is a region"),
    ] {
        let error = with(&text).unwrap_err().to_string();
        assert!(error.contains(message) && error.starts_with("own.toml"), "{text}: {error}");
    }
}

#[test]
fn time_zones_exist_on_this_host() {
    let folder = Path::new("/usr/share/zoneinfo");
    if !folder.exists() {
        println!("skipped: this host has no {}", folder.display());
        return;
    }
    for region in Catalogue::built_in().regions() {
        assert!(folder.join(&region.time_zone).is_file(), "{}: {}", region.id, region.time_zone);
    }
}

#[test]
fn buildings_and_calendars_agree_with_what_others_measured() {
    let Some(data) = std::env::var_os("NAUTILUS_DATA").map(PathBuf::from) else {
        println!("skipped: NAUTILUS_DATA is not set");
        return;
    };
    let sites = data.join("latency/sites/aws-direct-connect-locations.csv");
    let Ok(sites) = std::fs::read_to_string(&sites) else {
        println!("skipped: there is no {}", sites.display());
        return;
    };
    let rows: Vec<Vec<String>> = sites.lines().map(cells).collect();
    let column = |name: &str| rows[0].iter().position(|cell| cell == name).unwrap();
    let (code, latitude, longitude) =
        (column("Location Code"), column("Latitude"), column("Longitude"));
    for (name, site) in [("ny4", "EQNY5"), ("aurora", "CYOA1"), ("ld4", "EQLD5"), ("jpx", "ATTC1")]
    {
        let row = rows.iter().find(|row| row[code] == site).unwrap();
        let region = Catalogue::built_in().region(name).unwrap();
        let mut there = region.clone();
        there.latitude_deg = row[latitude].parse().unwrap();
        there.longitude_deg = row[longitude].parse().unwrap();
        let off_km = region.distance_km(&there);
        assert!(off_km <= region.accuracy_km, "{name} is {off_km} km from {site}");
    }
    for venue in ["xnys", "xlon", "xtks", "xetr"] {
        let calendar = format!("calendars/{}_2024_2025.csv", venue.to_uppercase());
        assert!(data.join(calendar).exists(), "{venue}");
        let holds = |region: &TradingRegion| region.venues.iter().any(|known| known == venue);
        assert!(Catalogue::built_in().regions().iter().any(holds), "{venue} stands nowhere");
    }
}

#[test]
fn no_measured_round_trip_is_faster_than_light_between_the_regions() {
    let Some(data) = std::env::var_os("NAUTILUS_DATA").map(PathBuf::from) else {
        println!("skipped: NAUTILUS_DATA is not set");
        return;
    };
    let mut pairs = 0;
    for from in Catalogue::built_in().regions().iter().filter(|region| region.provider == "AWS") {
        let path = data.join(format!("latency/aws-2020-06-05/{}.dat", from.aliases[0]));
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("skipped: there is no {}", path.display());
            continue;
        };
        for line in text.lines() {
            let (times, name) = line.split_once(':').unwrap();
            let Some(to) = Catalogue::built_in().region(name) else { continue };
            let least_ms: f64 = times.split('/').next().unwrap().parse().unwrap();
            let floor_ms = 2.0 * from.floor_us(to) / 1e3;
            assert!(least_ms >= floor_ms, "{} to {name}: {least_ms} ms, not {floor_ms}", from.id);
            // Not absurdly far either: fibre is slower and longer, not ten times.
            assert!(least_ms <= 5.0 * floor_ms + 20.0, "{} to {name}: {least_ms}", from.id);
            pairs += 1;
        }
    }
    println!("{pairs} pairs of regions measured by others");
}
