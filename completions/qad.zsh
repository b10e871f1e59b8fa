
#compdef qad

_qad_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _QAD_COMPLETE=complete_zsh qad)
}

compdef _qad_completion qad

