"""What every part uses: errors, console, YAML, processes, class paths; numpy at most."""
