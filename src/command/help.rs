//! The `HELP` subcommands, drawn from the rows, in the form that Redis answers: an array of
//! lines, each subcommand's syntax with its summary indented below.

use crate::resp::reply::Reply;

use super::docs::syntax;
use super::spec::Spec;

/// Writes the help of `container`.
pub fn write(container: &Spec, reply: &mut Reply) {
    let lines = lines(container);
    reply.array(lines.len());
    for line in lines {
        reply.simple(&line);
    }
}

fn lines(container: &Spec) -> Vec<String> {
    let name = container.name.to_uppercase();
    let mut lines =
        vec![format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    if container.accepts(1) {
        lines.push("(no subcommand)".to_owned());
        lines.push(format!("    {}.", container.docs.summary));
    }
    let is_help = |row: &&Spec| row.short_name() == "help";
    let others = container.subcommands.iter().filter(|row| !is_help(row));
    for row in others.chain(container.subcommands.iter().filter(is_help)) {
        let usage = format!("{} {}", row.short_name().to_uppercase(), syntax(row.docs.args));
        lines.push(usage.trim_end().to_owned());
        lines.push(format!("    {}.", row.docs.summary));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    #[test]
    fn help_has_the_form_of_redis() {
        for container in table::rows().iter().filter(|row| !row.subcommands.is_empty()) {
            let lines = lines(container);
            let name = container.name.to_uppercase();
            assert!(lines[0].starts_with(&format!("{name} <subcommand> ")));
            assert_eq!(lines[lines.len() - 2], "HELP");
            assert!(lines.iter().skip(2).step_by(2).all(|line| line.starts_with("    ")));
        }
    }

    #[test]
    fn config_help_tells_the_syntax() {
        let config = table::lookup(b"config").expect("a row");
        let lines = lines(config);
        assert!(lines.contains(&"GET parameter [parameter ...]".to_owned()));
        assert!(lines.contains(&"RESETSTAT".to_owned()));
        assert_eq!(lines.len(), 1 + 2 * config.subcommands.len());
    }
}
