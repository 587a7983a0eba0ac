"""Which constants explain measured times?"""
