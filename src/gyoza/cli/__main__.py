from gyoza.cli import main

main()
