"""What people look at: tables, plots, timelines. Everything is returned or written to a file; nothing is printed."""
