//! Files by landlock: everything that this kernel can refuse is refused, but below the folders named. Sockets of the
//! file system are no files to it: connecting to one is left to its mode.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};

use super::Files;

/// What is asked for; an older kernel gives what it has.
const WANTED: ABI = ABI::V5;

pub fn confine(files: &Files) -> Result<(), String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))
        .map_err(|error| said(&error))?
        .create()
        .map_err(|error| said(&error))?;
    let named =
        [(&files.read, AccessFs::from_read(WANTED)), (&files.write, AccessFs::from_all(WANTED))];
    for (path, access) in
        named.into_iter().flat_map(|(paths, access)| paths.iter().map(move |path| (path, access)))
    {
        // What does not exist cannot be used either.
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
        ruleset =
            ruleset.add_rule(PathBeneath::new(opened, access)).map_err(|error| said(&error))?;
    }
    let status = ruleset.restrict_self().map_err(|error| said(&error))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel has no landlock".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
