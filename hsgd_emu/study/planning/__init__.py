"""Which schedule reaches a target first?"""
