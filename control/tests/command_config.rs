//! `nautilus config` against a node that runs.

#[path = "support/node.rs"]
mod node;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use node::{Node, free_port, nautilus, supervisor, told};

#[test]
fn every_problem_of_a_node_file_is_found_by_its_own_reader() {
    if supervisor().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let text = "[node]\nid = \"Edge 1\"\n[worker]\ncoer = 1\npoll = \"spin\"\n\
                [port]\nkind = \"socket\"\n[[interface]]\nname = \"lo\"\n\
                [[cache]]\nport = 7\n[[cache]]\nid = \"q\"\nmax_memory_mb = 1\n\
                sources = [\n  { prefix = \"10.0.0.1/8\", allow = [] },\n]\n";
    std::fs::write(&file, text).unwrap();
    let (code, said, errors) = nautilus(&["config", "check"], &file);
    assert_eq!(code, Some(2), "{errors}");
    let said = said.replace(&format!("{}:", file.display()), "");
    let lines: Vec<&str> = said.lines().collect();
    let fronts = [
        "2: node.id: \"Edge 1\" is not an id",
        "4: worker.coer: unknown field `coer`",
        "5: worker.poll: unknown variant `spin`",
        "10: cache[0]: missing field `id`",
        "14: cache[1].max_memory_mb: 1 is not",
        "16: cache[1].sources",
    ];
    assert_eq!(lines.len(), fronts.len(), "{said}");
    for (line, front) in lines.iter().zip(fronts) {
        assert!(line.starts_with(front), "{line}");
    }
    let right = text.replace("Edge 1", "e").replace("coer = 1\npoll = \"spin\"\n", "");
    let right = right.replace("[[cache]]\nport = 7\n", "").replace("mb = 1\n", "mb = 8\n");
    std::fs::write(&file, right.replace("10.0.0.1/8", "10.0.0.0/8")).unwrap();
    let (code, said, errors) = nautilus(&["config", "check"], &file);
    assert!(code == Some(0) && said.contains(": fine\n"), "{said} {errors}");
    // It is right, and no node runs there.
    let nobody = folder.path().join("nobody");
    let words = ["config", "diff", "--node", nobody.to_str().unwrap()];
    let (code, said, errors) = nautilus(&words, &file);
    assert!(code == Some(3) && errors.contains("nobody: "), "{said} {errors}");
}

#[test]
fn a_running_node_gets_the_caches_of_its_file() {
    let Some(program) = supervisor() else { return };
    let (first, second, third) = (free_port(), free_port(), free_port());
    let node = Node::start(&program, first);
    let (used, draft) = (node.path("node.toml"), node.path("draft.toml"));
    assert_eq!(
        nautilus(&["config", "diff"], &used),
        (Some(0), "no differences\n".into(), "".into())
    );

    // Nothing at all where one of them cannot be made.
    let before = std::fs::read_to_string(&used).unwrap();
    let taken = UdpSocket::bind(("127.0.0.1", third)).unwrap();
    let both =
        Node::text(node.dir.path(), &[("first", first), ("second", second), ("third", third)]);
    std::fs::write(&draft, &both).unwrap();
    let (code, _, said) = nautilus(&["config", "apply"], &draft);
    assert!(code == Some(1) && said.contains("cache third: "), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(
        (node.caches(), std::fs::read_to_string(&used).unwrap()),
        (vec!["first".into()], before)
    );
    drop(taken);
    // Nor where the file cannot be put in its place: files of this process have no byte.
    let kept = std::fs::read_to_string(&used).unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" config apply \"$1\""])
        .args([Path::new(env!("CARGO_BIN_EXE_nautilus")), &draft])
        .output()
        .unwrap();
    let (code, said, errors) = told(output);
    assert!(code == Some(1) && errors.contains("nothing was changed"), "{said}{errors}");
    assert!(errors.contains("File too large"), "{errors}");
    let now = (node.caches(), std::fs::read_to_string(&used).unwrap());
    assert_eq!(now, (vec!["first".into()], kept));

    let text = both.replace("[port]\n", "[worker]\npoll = \"interrupt\"\n[port]\n");
    std::fs::write(&draft, &text).unwrap();
    let (code, said, _) = nautilus(&["config", "diff"], &draft);
    assert_eq!(code, Some(1));
    assert!(said.contains("cache[second].id") && said.contains("at run time"), "{said}");
    assert!(said.contains("worker.poll") && said.contains("restart"), "{said}");
    let (code, ..) = nautilus(&["config", "apply", "--dry-run"], &draft);
    assert_eq!((code, node.caches()), (Some(0), vec!["first".into()]));
    for round in 0..2 {
        let (code, said, errors) = nautilus(&["config", "apply"], &draft);
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(node.caches(), ["first", "second", "third"]);
        assert_eq!(std::fs::read_to_string(&used).unwrap(), text);
        assert_eq!(said.contains("was replaced"), round == 0, "{said}");
        assert!(said.contains("the node has to be started anew for worker.poll"), "{said}");
    }

    // What is not in the file goes when that is asked for; what the node began with needs a restart.
    let less = Node::text(node.dir.path(), &[("second", second)]);
    std::fs::write(&draft, &less).unwrap();
    let (code, said, errors) = nautilus(&["config", "apply"], &draft);
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.contains("cache third is not in the file and stays"), "{said}");
    assert!(said.contains("started anew for cache[first]"), "{said}");
    assert_eq!(node.caches(), ["first", "second", "third"]);
    let (code, _, errors) = nautilus(&["config", "apply", "--remove"], &draft);
    assert_eq!((code, node.caches()), (Some(0), vec!["first".into(), "second".into()]), "{errors}");
}
